"""Writing checkpoints beside the training instead of during it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from torch import Tensor

from lightgen_runtime.io.checkpoint_io import (
    CheckpointIO,
    MapLocation,
    TorchCheckpointIO,
)
from lightgen_runtime.utilities.map_parts import map_parts


class AsyncCheckpointIO(CheckpointIO):
    """Write checkpoints in a thread while training goes on.

    Saving returns when the checkpoint is copied to host memory, which takes its size once
    more for each one that is not written yet. Writing and removing happen in the order in
    which they were asked for; loading, and the end of a run, wait for them. An error is
    raised by whatever is asked for next, and nothing is removed after it.

    A logger that uploads each checkpoint as it is saved needs one that writes at once.

    Compat: Lightning removes at once, when what takes the file's place may not be written.

    Args:
        checkpoint_io: What writes and reads; by default `TorchCheckpointIO`.
    """

    def __init__(self, checkpoint_io: CheckpointIO | None = None) -> None:
        self.checkpoint_io = checkpoint_io or TorchCheckpointIO()
        self._thread: ThreadPoolExecutor | None = None
        self._last: Future[None] | None = None
        self._error: BaseException | None = None

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Copy `checkpoint`, and write it to `path` soon."""
        copied = map_parts(checkpoint, Tensor, _copied)
        save = self.checkpoint_io.save_checkpoint
        self._soon(lambda: save(copied, path, storage_options=storage_options))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove the checkpoint at `path` once all before it is written."""
        self._soon(lambda: self.checkpoint_io.remove_checkpoint(path))

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: MapLocation = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read the checkpoint at `path` once all before it is written."""
        self._wait()
        return self.checkpoint_io.load_checkpoint(path, map_location, weights_only)

    def teardown(self) -> None:
        """Wait until everything is written; see `CheckpointIO`."""
        try:
            self._wait()
        finally:
            if self._thread is not None:
                self._thread.shutdown()
            self._thread = None
            self.checkpoint_io.teardown()

    def _soon(self, action: Callable[[], None]) -> None:
        if self._error is not None:
            self._wait()
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._last = self._thread.submit(self._attempt, action)

    def _attempt(self, action: Callable[[], None]) -> None:
        if self._error is not None:
            return
        try:
            action()
        except BaseException as error:
            self._error = error

    def _wait(self) -> None:
        if self._last is not None:
            self._last.result()  # one thread: all before it is done as well
        error, self._error = self._error, None
        if error is not None:
            raise error


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True)
