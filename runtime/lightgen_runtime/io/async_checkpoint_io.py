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
from lightgen_runtime.io.distributed_checkpoint_io import DistributedCheckpointIO
from lightgen_runtime.io.host_copies import HostCopies
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
    """

    def __init__(self, checkpoint_io: CheckpointIO | None = None) -> None:
        self.checkpoint_io = checkpoint_io or TorchCheckpointIO()
        self.on_failure: Callable[[Callable[[], None]], None] | None = None
        self._copies = HostCopies()
        self._thread: ThreadPoolExecutor | None = None
        self._last: Future[None] | None = None
        self._failures: deque[tuple[str, Exception]] = deque()
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
        self._finish()
        if isinstance(self.checkpoint_io, DistributedCheckpointIO):
            checkpoint = self.checkpoint_io.own_part(checkpoint)
        copied = self._copies.copy(checkpoint)
        self._number += 1
        self._soon(partial(self._save, self._number, copied, path, storage_options))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove the checkpoint at `path` once all before it is written."""
        self._soon(partial(self._remove, self._number, path))

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: MapLocation = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read the checkpoint at `path` once all before it is written."""
        self._finish()
        return self.checkpoint_io.load_checkpoint(path, map_location, weights_only)

    def teardown(self) -> None:
        """Wait until everything is written; see `CheckpointIO`."""
        try:
            self._finish()
        finally:
            if self._thread is not None:
                self._thread.shutdown()
            self._thread = self._last = self.on_failure = None
            self._copies = HostCopies()
            self.checkpoint_io.teardown()

    def raise_failure(self) -> None:
        """Raise, or in a run perhaps only warn of, what went wrong since the last call.

        Raises:
            Exception: What the `CheckpointIO` raised in the thread.
        """
        fatal = None
        while self._failures:
            what, error = self._failures.popleft()
            self._number += (
                1  # what is removed from here on lost its place to no failure
            )
            if self.on_failure is not None and isinstance(error, OSError):
                rank_zero_warn(
                    f"{what}: {error}. The run goes on; what the file was to replace "
                    "stays. Make room or set the folder's permissions, or the next one "
                    "fails as well."
                )
            else:
                fatal = fatal or error
        if fatal is not None:
            raise fatal

    def _finish(self) -> None:
        if self._last is not None:
            self._last.result()  # one thread: all before it is done as well
        self.raise_failure()

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
            self._note_failure(f"`{path}` could not be written", error)

    def _remove(self, number: int, path: str | Path) -> None:
        if number == self._failed_number:
            return  # it would have made room for what was not written
        try:
            self.checkpoint_io.remove_checkpoint(path)
        except Exception as error:
            self._note_failure(f"`{path}` could not be removed", error)

    def _note_failure(self, what: str, error: Exception) -> None:
        self._failures.append((what, error))
        if self.on_failure is not None:
            self.on_failure(self.raise_failure)
