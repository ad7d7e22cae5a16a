"""Changing how many batches make one optimizer step, from epoch to epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightgen_runtime.callbacks.callback import Callback
from lightgen_runtime.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from lightgen_runtime.core.module import LightningModule
    from lightgen_runtime.trainer.trainer import Trainer


class GradientAccumulationScheduler(Callback):
    """Set the trainer's `accumulate_grad_batches` at the start of given epochs.

    Args:
        scheduling: Batches to accumulate by the 0-based epoch from which on they hold.
            Epochs before the first of these do not accumulate.

    Raises:
        MisconfigurationException: At construction for a schedule that makes no sense; at
            the start of a fit in manual optimization or beside
            `Trainer(accumulate_grad_batches=...)`.

    Example:
        >>> GradientAccumulationScheduler({5: 2}).get_accumulate_grad_batches(7)
        2
    """

    def __init__(self, scheduling: dict[int, int]) -> None:
        if not scheduling or not isinstance(scheduling, dict):
            raise MisconfigurationException(
                f"`GradientAccumulationScheduler(scheduling={scheduling!r})`: a dictionary "
                "from epochs to numbers of batches is needed, such as {0: 8, 4: 1}"
            )
        for epoch, batches in scheduling.items():
            if not _is_count(epoch, least=0) or not _is_count(batches, least=1):
                raise MisconfigurationException(
                    f"`GradientAccumulationScheduler`: {{{epoch!r}: {batches!r}}} is not "
                    "accepted. Use an epoch of at least 0, and at least 1 batch."
                )
        self.scheduling = {0: 1, **scheduling}
        self.epochs = sorted(self.scheduling)

    def going_to_accumulate_grad_batches(self) -> bool:
        """Tell whether any epoch accumulates."""
        return any(batches > 1 for batches in self.scheduling.values())

    def get_accumulate_grad_batches(self, epoch: int) -> int:
        """Return how many batches make a step in a 0-based epoch."""
        return self.scheduling[max(e for e in self.epochs if e <= epoch)]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what cannot work; set the number of an epoch that is resumed."""
        if not pl_module.automatic_optimization:
            raise MisconfigurationException(
                "`GradientAccumulationScheduler` with manual optimization: the trainer "
                "does not step. Remove the callback and accumulate in `training_step`."
            )
        if trainer.accumulate_grad_batches != 1:
            raise MisconfigurationException(
                "`GradientAccumulationScheduler` beside `Trainer(accumulate_grad_batches="
                f"{trainer.accumulate_grad_batches})`: remove one of the two"
            )
        # The start of the epoch may be over already.
        if trainer.ckpt_path is not None or trainer.progress.batch_idx:
            self._set(trainer)

    def on_train_epoch_start(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> None:
        """Set this epoch's number."""
        self._set(trainer)

    def teardown(
        self, trainer: Trainer, pl_module: LightningModule, stage: str
    ) -> None:
        """Leave the trainer as it was, for its next fit."""
        if stage == "fit":
            trainer.accumulate_grad_batches = 1

    def _set(self, trainer: Trainer) -> None:
        trainer.accumulate_grad_batches = self.get_accumulate_grad_batches(
            trainer.current_epoch
        )


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
