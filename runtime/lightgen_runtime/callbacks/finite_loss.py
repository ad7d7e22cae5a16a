"""Ending a run whose loss is no number any more, before it spoils a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightgen_runtime.callbacks.callback import Callback
from lightgen_runtime.utilities.exceptions import (
    MisconfigurationException,
    NonFiniteLossError,
)

if TYPE_CHECKING:
    from lightgen_runtime.callbacks.callback import StepOutput
    from lightgen_runtime.core.module import LightningModule
    from lightgen_runtime.trainer.trainer import Trainer

DEFAULT_EVERY_N_STEPS = 50  # where the trainer never logs


class FiniteLoss(Callback):
    """Stop with an error as soon as the training loss is seen to be NaN or infinite.

    Losses are collected without waiting for the device and checked together: every so
    many batches, before validation, at the end of an epoch and before a checkpoint
    callback writes, also after an exception. The error names the first batch whose loss
    was not finite.

    Args:
        every_n_steps: Batches between two checks; `None` takes the trainer's
            `log_every_n_steps`. Memory is one number for each of them.

    Raises:
        MisconfigurationException: `every_n_steps` is not positive.
        NonFiniteLossError: During the run.

    Cost: per batch one call and one list entry; per check one host sync.
    """

    def __init__(self, every_n_steps: int | None = None) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise MisconfigurationException(
                f"`every_n_steps={every_n_steps}` is not accepted. Use the number of "
                "batches between two checks, 1 or more, or None."
            )
        self.every_n_steps = every_n_steps
        self._limit = every_n_steps or DEFAULT_EVERY_N_STEPS
        self._losses: list[tuple[int, int, Tensor]] = []  # batch, step, loss

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Settle how often to check."""
        if self.every_n_steps is None:
            self._limit = trainer.log_every_n_steps or DEFAULT_EVERY_N_STEPS

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: StepOutput,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Keep the loss; check when enough have come together."""
        if isinstance(outputs, dict) and "loss" in outputs:
            step = trainer.progress.global_step  # not the property: this is every batch
            self._losses.append((batch_idx, step, outputs["loss"]))
            if len(self._losses) >= self._limit:
                self.check(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check before time is spent on validating a broken model."""
        self.check(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check before checkpoint callbacks judge the epoch."""
        self.check(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Check before the file is written."""
        self.check(trainer)

    def teardown(
        self, trainer: Trainer, pl_module: LightningModule, stage: str
    ) -> None:
        """Forget the run, and with it a loss that ended it."""
        self._losses = []

    def check(self, trainer: Trainer) -> None:
        """Look at the losses since the last check.

        Raises:
            NonFiniteLossError: One is not finite; every later check of this run says so
                again, because the weights are broken from then on.
        """
        losses = self._losses
        if not losses:
            return
        values = torch.stack([loss.detach().reshape(()).float() for *_, loss in losses])
        bad = (~torch.isfinite(values)).nonzero().flatten().tolist()  # the host sync
        if not bad:
            self._losses = []
            return
        batch_idx, step, loss = losses[bad[0]]
        raise NonFiniteLossError(
            f"The training loss became {float(loss)} at batch_idx {batch_idx} of epoch "
            f"{trainer.current_epoch}, global_step {step}. "
            f"{_last_good_checkpoint(trainer)} Next: look for NaN in the data of that "
            "batch; lower the learning rate; limit the gradients with "
            "`Trainer(gradient_clip_val=1.0)`; or find the operation it comes from with "
            "`Trainer(detect_anomaly=True)`."
        )


def _last_good_checkpoint(trainer: Trainer) -> str:
    """Name the newest checkpoint, all of which were written before the bad loss."""
    callback = trainer.checkpoint_callback
    for name in ("last_model_path", "best_model_path"):
        path = getattr(callback, name, "")
        if path:
            return f"The last good checkpoint is `{path}`."
    return "No checkpoint was written before."
