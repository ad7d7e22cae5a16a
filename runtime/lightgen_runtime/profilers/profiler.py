"""What every profiler has in common."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lightgen_runtime.utilities.rank_zero import logger

if TYPE_CHECKING:
    from lightgen_runtime.core.module import LightningModule

T = TypeVar("T")


class Profiler(ABC):
    """Measure named actions of a run; subclasses say what measuring is.

    A trainer that has none calls nothing of it: actions are wrapped when hooks and steps
    are bound, and only if there is a profiler.

    Args:
        dirpath: Folder of the report and of what else is written; by default the run's
            `log_dir`, if `filename` is given.
        filename: The report's file name, without its ending; None shows it instead.
    """

    def __init__(
        self,
        dirpath: str | os.PathLike[str] | None = None,
        filename: str | None = None,
    ) -> None:
        self.dirpath = dirpath
        self.filename = filename
        self._stage: str | None = None
        self._local_rank: int | None = None
        self._module: LightningModule | None = None

    @abstractmethod
    def start(self, action_name: str) -> None:
        """Begin to measure an action."""

    @abstractmethod
    def stop(self, action_name: str) -> None:
        """End measuring an action."""

    def summary(self) -> str:
        """Return the report."""
        return ""

    @contextmanager
    def profile(self, action_name: str) -> Iterator[str]:
        """Measure what happens inside, also if it ends by an exception.

        Example:
            >>> from lightgen_runtime.profilers import SimpleProfiler
            >>> profiler = SimpleProfiler()
            >>> with profiler.profile("load"):
            ...     numbers = list(range(10))
            >>> list(profiler.recorded_durations)
            ['load']
        """
        try:
            self.start(action_name)
            yield action_name
        finally:
            self.stop(action_name)

    def wrap(self, action_name: str, function: Callable[..., T]) -> Callable[..., T]:
        """Return `function`, measured at each call."""

        @wraps(function)
        def measured(*args: Any, **kwargs: Any) -> T:
            with self.profile(action_name):
                return function(*args, **kwargs)

        return measured

    def iterate(self, action_name: str, iterator: Iterator[T]) -> Iterator[T]:
        """Yield what `iterator` yields, measuring how long each item takes to come."""
        fetch = self.wrap(action_name, iterator.__next__)
        while True:
            try:
                item = fetch()
            except StopIteration:
                return
            yield item

    def setup(
        self, stage: str, local_rank: int | None = None, log_dir: str | None = None
    ) -> None:
        """Begin a run.

        Args:
            stage: "fit", "validate", "test" or "predict".
            local_rank: Number of this process on its node.
            log_dir: The run's folder, used if no `dirpath` was given.
        """
        self._stage = stage
        self._local_rank = local_rank
        self.dirpath = self.dirpath or log_dir

    def attach(self, module: LightningModule) -> None:
        """Make the module of the run known."""
        self._module = module

    def describe(self) -> None:
        """Write the report to its file, or show it, and release what measured."""
        summary = self.summary()
        if summary and self.filename and self.dirpath:
            path = self.file_path()
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as stream:
                stream.write(summary)
        elif summary and self.local_rank == 0:
            logger.info(summary)
        self.teardown(self._stage)

    def teardown(self, stage: str | None) -> None:
        """Release what `start` took."""

    @property
    def local_rank(self) -> int:
        """Number of this process on its node; 0 outside of runs."""
        return self._local_rank or 0

    def file_path(self, action_name: str | None = None, ending: str = ".txt") -> Path:
        """Return where a file goes: `<dirpath>/<stage>-<filename>-<rank>-<action>`."""
        rank = None if self._local_rank is None else str(self._local_rank)
        parts = (self._stage, self.filename, rank, action_name)
        name = "-".join(part for part in parts if part)
        # Source: what Windows, the strictest, forbids in file names.
        name = re.sub(r"_+", "_", re.sub(r'[\\/:*?"<>|\n\r\t]', "_", name)).strip()
        return Path(self.dirpath or ".") / f"{name or 'profile'}{ending}"

    def report(self, sections: Mapping[str, str]) -> str:
        """Return a report of one section for each action."""
        rank = "" if self._local_rank is None else f" rank: {self._local_rank}"
        lines = [self.title()]
        for action, text in sections.items():
            lines += [f"Profile stats for: {action}{rank}", text]
        return "\n".join(lines)

    def title(self) -> str:
        """Return the report's first line."""
        stage = f"{self._stage.upper()} " if self._stage else ""
        return f"{stage}Profiler Report"
