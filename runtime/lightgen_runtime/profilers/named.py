"""From the `profiler` flag to a profiler."""

from __future__ import annotations

from importlib import import_module

from lightgen_runtime.profilers.base import PassThroughProfiler
from lightgen_runtime.profilers.profiler import Profiler
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.nearest import did_you_mean

_CLASSES = {
    "advanced": ("advanced", "AdvancedProfiler"),
    "pytorch": ("pytorch", "PyTorchProfiler"),
    "simple": ("simple", "SimpleProfiler"),
}


def choose_profiler(profiler: Profiler | str | None) -> Profiler:
    """Return the profiler that a flag means; one that does nothing for None.

    Raises:
        MisconfigurationException: It is neither a profiler nor the name of one.
    """
    if profiler is None:
        return PassThroughProfiler()
    if isinstance(profiler, Profiler):
        return profiler
    name = profiler.lower() if isinstance(profiler, str) else ""
    if name not in _CLASSES:
        raise MisconfigurationException(
            f"`Trainer(profiler={profiler!r})`: None, a `Profiler` or one of "
            f"{', '.join(map(repr, _CLASSES))} is accepted.{did_you_mean(name, _CLASSES)}"
        )
    module, kind = _CLASSES[name]
    made: Profiler = getattr(
        import_module(f"lightgen_runtime.profilers.{module}"), kind
    )()
    return made
