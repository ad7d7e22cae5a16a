"""Keeping the state of a fit that fails."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from lightgen_runtime.callbacks.checkpoint import Checkpoint
from lightgen_runtime.io import location
from lightgen_runtime.io.store import EXTENSION
from lightgen_runtime.utilities.exceptions import (
    CheckpointWriteError,
    MisconfigurationException,
)
from lightgen_runtime.utilities.rank_zero import rank_zero_info, rank_zero_warn

if TYPE_CHECKING:
    from lightgen_runtime.core.module import LightningModule
    from lightgen_runtime.trainer.trainer import Trainer


class OnExceptionCheckpoint(Checkpoint):
    """Write a checkpoint when an exception ends a fit; remove it after one that ends well.

    Args:
        dirpath: Folder of the file.
        filename: Its name, without extension.

    Raises:
        MisconfigurationException: `filename` is empty.

    Compat: Lightning writes and removes the file in every stage, so that evaluating the
    file deletes it; here only a fit does either, and one that fails before its first
    batch, trains nothing, or is a trial run (`fast_dev_run`) leaves the file as it is.
    After a signal that has the fit's state saved elsewhere nothing is written.

    Of several processes one writes, and not where all others would have to. What it
    writes inside an epoch holds the weights, but no fit can go on from it.

    Example:
        >>> OnExceptionCheckpoint("runs").ckpt_path
        'runs/on_exception.ckpt'
    """

    FILE_EXTENSION = EXTENSION

    def __init__(
        self, dirpath: str | os.PathLike[str], filename: str = "on_exception"
    ) -> None:
        if not filename:
            raise MisconfigurationException(
                "`OnExceptionCheckpoint(filename='')`: the file needs a name"
            )
        self.dirpath = dirpath
        self.filename = filename
        self._trains = self._failed = self._ended = False

    @property
    def ckpt_path(self) -> str:
        """Where the file is, if it is there."""
        return location.join(self.dirpath, f"{self.filename}{self.FILE_EXTENSION}")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget how the last run ended."""
        self._trains = self._failed = self._ended = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that there is something to save from now on."""
        self._trains = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that the fit has done what it was to do."""
        self._ended = True

    def record_of(self, path: str) -> dict[str, Any] | None:
        """See `Checkpoint`."""
        if path != self.ckpt_path:
            return None
        return {"kept_by": self.state_key, "score": None, "role": "interrupted"}

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Write the file."""
        self._failed = True
        # A fit that could not begin must not replace what an earlier one has left.
        if not self._trains or trainer.fast_dev_run or trainer.interrupted_path:
            return
        try:
            trainer.save_checkpoint(self.ckpt_path)
        except CheckpointWriteError as error:
            rank_zero_warn(f"{error} The state of the fit that failed is lost.")
            return
        rank_zero_info(
            f"Saved `{self.ckpt_path}` because of {type(exception).__name__}: {exception}"
        )

    def teardown(
        self, trainer: Trainer, pl_module: LightningModule, stage: str
    ) -> None:
        """Remove the file of an earlier failure, once a fit has ended well."""
        if stage != "fit" or not self._ended or self._failed or trainer.fast_dev_run:
            return
        if location.exists(self.ckpt_path):
            trainer.strategy.remove_checkpoint(self.ckpt_path)
