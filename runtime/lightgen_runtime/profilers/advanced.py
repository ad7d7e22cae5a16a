"""Which functions each action spends its time in."""

from __future__ import annotations

import cProfile
import io
import os
import pstats
from typing import Any

from lightgen_runtime.profilers.profiler import Profiler


class AdvancedProfiler(Profiler):
    """Record every call inside each action with `cProfile`; slow, and the report is long.

    Time inside an action that runs within another is the inner one's alone: only one
    `cProfile` can listen at a time.

    Args:
        dirpath: Folder of what is written; by default the run's `log_dir`.
        filename: The report's file name, without its ending; None shows it instead.
        line_count_restriction: Functions to report for each action: a number (int) or a
            share (float from 0 to 1).
        dump_stats: Also write what was recorded to `<dirpath>/...prof`, for tools that
            show it.
    """

    def __init__(
        self,
        dirpath: str | os.PathLike[str] | None = None,
        filename: str | None = None,
        line_count_restriction: int | float = 1.0,
        dump_stats: bool = False,
    ) -> None:
        super().__init__(dirpath, filename)
        self.line_count_restriction = line_count_restriction
        self.dump_stats = dump_stats
        self.profiled_actions: dict[str, cProfile.Profile] = {}
        self._running: list[str] = []

    def start(self, action_name: str) -> None:
        """Record an action's calls, and pause the action that it runs in."""
        if self._running:
            self.profiled_actions[self._running[-1]].disable()
        self._running.append(action_name)
        self.profiled_actions.setdefault(action_name, cProfile.Profile()).enable()

    def stop(self, action_name: str) -> None:
        """Stop recording an action, and go on with the one that it ran in.

        Raises:
            ValueError: It was never started.
        """
        if action_name not in self._running:
            raise ValueError(f"the action {action_name!r} is stopped but never started")
        self.profiled_actions[self._running[-1]].disable()
        self._running.remove(action_name)
        if self._running:
            self.profiled_actions[self._running[-1]].enable()

    def summary(self) -> str:
        """Return, for each action, its functions by cumulative time."""
        sections = {}
        for action, profile in self.profiled_actions.items():
            if self.dump_stats:
                path = self.file_path(action, ".prof")
                path.parent.mkdir(parents=True, exist_ok=True)
                profile.dump_stats(path)
            text = io.StringIO()
            stats = pstats.Stats(profile, stream=text).strip_dirs()
            stats.sort_stats("cumulative").print_stats(self.line_count_restriction)
            sections[action] = text.getvalue()
        return self.report(sections)

    def teardown(self, stage: str | None) -> None:
        """Forget what was recorded."""
        if self._running:
            self.profiled_actions[self._running[-1]].disable()
        self._running.clear()
        self.profiled_actions.clear()

    def __getstate__(self) -> dict[str, Any]:
        # `cProfile.Profile` cannot be pickled.
        return {
            **self.__dict__,
            "profiled_actions": {},
            "_running": [],
            "_module": None,
        }
