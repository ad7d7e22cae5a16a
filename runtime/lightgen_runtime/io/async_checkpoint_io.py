"""Writing checkpoints beside the training instead of during it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from lightgen_runtime.io.checkpoint_io import (
    CheckpointIO,
    MapLocation,
    TorchCheckpointIO,
)
from lightgen_runtime.io.host_copies import HostCopies
from lightgen_runtime.utilities.exceptions import CheckpointWriteError
from lightgen_runtime.utilities.rank_zero import rank_zero_warn


class AsyncCheckpointIO(CheckpointIO):
    """Write checkpoints in a thread while training goes on.

    Saving returns when the checkpoint is copied to host memory, which is kept for the
    next copy and given back at the end of the run. While one checkpoint is being written,
    saving another waits, so that there is never more than one copy. Writing and removing
    happen in the order in which they were asked for; loading, and the end of a run, wait
    for them.

    In a run, a full disk or a missing permission is a warning, and whatever else goes
    wrong ends the run when the running batch is done. Outside of a run, an error is raised
    by the next `save_checkpoint`, `load_checkpoint` or `teardown`. After a failed write
    nothing is removed that it was to replace.

    A logger that uploads each checkpoint as it is saved needs one that writes at once.

    Compat: Lightning removes at once, when what takes the file's place may not be written.

    Args:
        checkpoint_io: What writes and reads; by default `TorchCheckpointIO`.

    Attributes:
        on_failure: Who is told, by the thread, that something went wrong; it is given what
            to call for the error to be raised or warned of. The trainer sets it for each
            run.
        failed_paths: Of the checkpoints that could not be written, and have not been since.
    """

    def __init__(self, checkpoint_io: CheckpointIO | None = None) -> None:
        self.checkpoint_io = checkpoint_io or TorchCheckpointIO()
        self.on_failure: Callable[[Callable[[], None]], None] | None = None
        self._copies = HostCopies()
        self._thread: ThreadPoolExecutor | None = None
        self._last: Future[None] | None = None
        self.failed_paths: set[str] = set()
        self._failures: deque[tuple[str, str, Exception]] = deque()
        self._number = 0  # of the newest save
        self._failed_number = -1

    @property
    def writes_from_all_processes(self) -> bool:
        """Whether every process saves, and not only the first."""
        return self.checkpoint_io.writes_from_all_processes

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Copy `checkpoint`, and write it to `path` soon."""
        self.settle()
        copied = self._copies.copy(self.checkpoint_io.own_part(checkpoint))
        self._number += 1
        self._soon(partial(self._save, self._number, copied, path, storage_options))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove the checkpoint at `path` once all before it is written."""
        self._soon(partial(self._remove, self._number, path))

    def after_save(self, path: str | Path, link: str, make: Callable[[], None]) -> None:
        """Make a link to the checkpoint at `path` once it is written; not if that fails.

        Args:
            path: Of a checkpoint that was saved before.
            link: Where the link goes.
            make: Makes it.
        """
        self._soon(partial(self._link, path, link, make))

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: MapLocation = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read the checkpoint at `path` once all before it is written."""
        self.settle()
        return self.checkpoint_io.load_checkpoint(path, map_location, weights_only)

    def settle(self, needed: str | Path | None = None) -> None:
        """Wait until everything that was asked for is done or has failed.

        Args:
            needed: A checkpoint whose failure is to be raised, and not only warned of.

        Raises:
            Exception: As `raise_failure`.
        """
        if self._last is not None:
            self._last.result()  # one thread: all before it is done as well
        self.raise_failure(needed)

    def teardown(self) -> None:
        """Wait until everything is written; see `CheckpointIO`."""
        try:
            self.settle()
        finally:
            if self._thread is not None:
                self._thread.shutdown()
            self._thread = self._last = self.on_failure = None
            self._copies = HostCopies()
            self.checkpoint_io.teardown()

    def raise_failure(self, needed: str | Path | None = None) -> None:
        """Raise, or in a run perhaps only warn of, what went wrong since the last call.

        Args:
            needed: As in `settle`.

        Raises:
            Exception: What the `CheckpointIO` raised in the thread.
        """
        fatal = None
        while self._failures:
            path, warning, error = self._failures.popleft()
            # What is removed from here on lost its place to no failure.
            self._number += 1
            does_without = self.on_failure is not None and path != str(needed)
            if does_without and isinstance(error, OSError):
                rank_zero_warn(warning)
            else:
                fatal = fatal or error
        if fatal is not None:
            raise fatal

    def _soon(self, action: Callable[[], None]) -> None:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._last = self._thread.submit(action)

    # In the thread.

    def _save(
        self, number: int, checkpoint: dict[str, Any], path: str | Path, options: Any
    ) -> None:
        try:
            self.checkpoint_io.save_checkpoint(
                checkpoint, path, storage_options=options
            )
        except Exception as error:
            self._failed_number = number
            self.failed_paths.add(str(path))
            self._note_failed_write(str(path), error)
        else:
            self.failed_paths.discard(str(path))

    def _link(self, path: str | Path, link: str, make: Callable[[], None]) -> None:
        if str(path) in self.failed_paths:
            return
        try:
            make()
        except Exception as error:
            self._note_failed_write(link, error)

    def _remove(self, number: int, path: str | Path) -> None:
        if number == self._failed_number:
            return  # it would have made room for what was not written
        try:
            self.checkpoint_io.remove_checkpoint(path)
        except Exception as error:
            warning = f"`{path}` has lost its place but stays: {error}"
            self._note_failure(str(path), warning, error)

    def _note_failed_write(self, path: str, error: Exception) -> None:
        if not isinstance(error, OSError):
            self._note_failure(path, "", error)
            return
        if not isinstance(error, CheckpointWriteError):
            error = CheckpointWriteError(path, error)
        self._note_failure(path, error.as_warning(), error)

    def _note_failure(self, path: str, warning: str, error: Exception) -> None:
        self._failures.append((path, warning, error))
        if self.on_failure is not None:
            self.on_failure(self.raise_failure)
