"""The profiler of a trainer that has none."""

from __future__ import annotations

from lightgen_runtime.profilers.profiler import Profiler


class PassThroughProfiler(Profiler):
    """Measures nothing, so that `self.trainer.profiler.profile(...)` is always there."""

    def start(self, action_name: str) -> None:
        """Do nothing."""

    def stop(self, action_name: str) -> None:
        """Do nothing."""
