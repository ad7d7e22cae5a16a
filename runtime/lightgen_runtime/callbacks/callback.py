"""The base class of everything that listens to a run without being the model.

The Trainer resolves hooks once, before the first batch: only methods that differ from
the ones below, or that live in the instance, are ever called. A hook that nobody
overrides costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.optim import Optimizer

if TYPE_CHECKING:
    from lightgen_runtime.core.module import LightningModule
    from lightgen_runtime.trainer.trainer import Trainer

StepOutput = Tensor | Mapping[str, Any] | None


class Callback:
    """Add behaviour to a run: override the hooks of interest, leave the rest.

    Compat: hook names and arguments are those of Lightning 2.6.
    """

    @property
    def state_key(self) -> str:
        """Name the entry of this callback in a checkpoint.

        Two callbacks of one class need different keys if both keep state; build them
        with `_generate_state_key`.
        """
        return type(self).__qualname__

    def _generate_state_key(self, **kwargs: Any) -> str:
        """Join the class name with the arguments that tell two instances apart."""
        return f"{type(self).__qualname__}{kwargs!r}"

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must keep of this callback: plain data, tensors."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` returned when the checkpoint was written."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Run before anything else; `stage` is fit, validate, test or predict."""

    def teardown(
        self, trainer: Trainer, pl_module: LightningModule, stage: str
    ) -> None:
        """Run at the very end of a stage."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run once the model is on its device and the optimizers exist."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run after training, when the model is back on the CPU."""

    def on_sanity_check_start(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> None:
        """Run before the validation batches that only prove the code works."""

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run after the sanity check; its metrics are discarded."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run before the first epoch."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run after the last epoch."""

    def on_train_epoch_start(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> None:
        """Run before the first batch of an epoch."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run after an epoch's last batch and validation.

        Early stopping and checkpoint callbacks run after the module's own hook, so
        that they see what it logged.
        """

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Run before each training batch."""

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: StepOutput,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Run after each training batch.

        Args:
            trainer: The running trainer.
            pl_module: The module being trained.
            outputs: What `training_step` returned, with a detached `"loss"`; `None`
                when it returned `None`.
            batch: The batch, on its device.
            batch_idx: Position in the epoch, from 0.
        """

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run before validation, inside fit or alone."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run after validation, when its metrics are final."""

    def on_validation_epoch_start(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> None:
        """Run before the first validation batch."""

    def on_validation_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> None:
        """Run after the last validation batch; may still log."""

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Run before each validation batch."""

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: StepOutput,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Run after each validation batch; `outputs` is what the step returned."""

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run before testing."""

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run after testing, when its metrics are final."""

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run before the first test batch."""

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run after the last test batch; may still log."""

    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Run before each test batch."""

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: StepOutput,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Run after each test batch; `outputs` is what the step returned."""

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run before prediction."""

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run after prediction."""

    def on_predict_epoch_start(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> None:
        """Run before the first batch to predict."""

    def on_predict_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> None:
        """Run after the last predicted batch."""

    def on_predict_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Run before each batch to predict."""

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Run after each predicted batch; `outputs` is the prediction."""

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Run when the run ends by an exception, `KeyboardInterrupt` included."""

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add to the checkpoint about to be written, in place."""

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Read what `on_save_checkpoint` added, before `load_state_dict`."""

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Run before the backward pass; `loss` is already divided and scaled."""

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run after the backward pass, with gradients still scaled under fp16."""

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Run before each optimizer step, with unscaled gradients."""

    def on_before_zero_grad(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Run before gradients are cleared."""
