"""Keeping the state of a fit that fails."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightgen_runtime.callbacks.checkpoint import Checkpoint
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.rank_zero import rank_zero_info

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
    file deletes it; here only a fit does either. A trial run (`fast_dev_run`) leaves no
    file.

    Example:
        >>> OnExceptionCheckpoint("runs").ckpt_path
        'runs/on_exception.ckpt'
    """

    FILE_EXTENSION = ".ckpt"

    def __init__(
        self, dirpath: str | os.PathLike[str], filename: str = "on_exception"
    ) -> None:
        if not filename:
            raise MisconfigurationException(
                "`OnExceptionCheckpoint(filename='')`: the file needs a name"
            )
        self.dirpath = dirpath
        self.filename = filename
        self._failed = False

    @property
    def ckpt_path(self) -> str:
        """Where the file is, if it is there."""
        return str(Path(self.dirpath) / f"{self.filename}{self.FILE_EXTENSION}")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget how the last run ended."""
        self._failed = False

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
        if trainer.state.fn != "fit" or trainer.fast_dev_run:
            return
        trainer.save_checkpoint(self.ckpt_path)
        rank_zero_info(
            f"Saved `{self.ckpt_path}` because of {type(exception).__name__}: {exception}"
        )

    def teardown(
        self, trainer: Trainer, pl_module: LightningModule, stage: str
    ) -> None:
        """Remove the file of an earlier failure, once a fit has ended well."""
        if stage == "fit" and not self._failed and Path(self.ckpt_path).exists():
            trainer.strategy.remove_checkpoint(self.ckpt_path)
