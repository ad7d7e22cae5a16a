"""The hooks of a module, all of them doing nothing until overridden."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.optim import Optimizer

if TYPE_CHECKING:
    from lightgen_runtime.core.optim import LightningOptimizer


class ModuleHooks(nn.Module):
    """Moments of a run at which a module may act.

    The base versions are never called by a run, except where a docstring says otherwise:
    what nobody overrides costs nothing.
    """

    def on_fit_start(self) -> None:
        """Act when the model is on its device and no batch has been read."""

    def on_fit_end(self) -> None:
        """Act when the fit is over and its resources are released."""

    def on_train_start(self) -> None:
        """Act after the sanity check, before the first epoch."""

    def on_train_end(self) -> None:
        """Act after the last epoch."""

    def on_train_epoch_start(self) -> None:
        """Act before an epoch's batches."""

    def on_train_epoch_end(self) -> None:
        """Act after an epoch's batches; `self.log` reports once for the epoch."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        """Act before a training step; returning -1 ends the epoch here."""

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Act after a training step; `outputs` is a mapping with the detached "loss"."""

    def on_before_zero_grad(self, optimizer: Optimizer) -> None:
        """Act before gradients are cleared."""

    def on_before_backward(self, loss: Tensor) -> None:
        """Act on the loss, already divided by the number of accumulated batches."""

    def on_after_backward(self) -> None:
        """Act on fresh gradients, before the optimizer steps."""

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Act on complete gradients, before they are clipped."""

    def on_validation_model_zero_grad(self) -> None:
        """Release gradients before validation (this version does)."""
        self.zero_grad()

    def on_validation_model_eval(self) -> None:
        """Switch to evaluation before validation (this version does)."""
        self.eval()

    def on_validation_model_train(self) -> None:
        """Switch back after validation (by default every submodule to its old mode)."""
        self.train()

    def on_validation_start(self) -> None:
        """Act when validation begins."""

    def on_validation_end(self) -> None:
        """Act when validation is over and its metrics are known."""

    def on_validation_epoch_start(self) -> None:
        """Act before the validation batches."""

    def on_validation_epoch_end(self) -> None:
        """Act after the validation batches; `self.log` still counts for them."""

    def on_validation_batch_start(
        self, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Act before a validation step."""

    def on_validation_batch_end(
        self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Act after a validation step, on what it returned."""

    def on_test_model_eval(self) -> None:
        """Switch to evaluation before testing (this version does)."""
        self.eval()

    def on_test_model_train(self) -> None:
        """Switch back after testing (by default every submodule to its old mode)."""
        self.train()

    def on_test_start(self) -> None:
        """Act when testing begins."""

    def on_test_end(self) -> None:
        """Act when testing is over and its metrics are known."""

    def on_test_epoch_start(self) -> None:
        """Act before the test batches."""

    def on_test_epoch_end(self) -> None:
        """Act after the test batches; `self.log` still counts for them."""

    def on_test_batch_start(
        self, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Act before a test step."""

    def on_test_batch_end(
        self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Act after a test step, on what it returned."""

    def on_predict_model_eval(self) -> None:
        """Switch to evaluation before predicting (this version does)."""
        self.eval()

    def on_predict_start(self) -> None:
        """Act when predicting begins."""

    def on_predict_end(self) -> None:
        """Act when predicting is over."""

    def on_predict_epoch_start(self) -> None:
        """Act before the batches to predict."""

    def on_predict_epoch_end(self) -> None:
        """Act after the batches to predict."""

    def on_predict_batch_start(
        self, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Act before a predict step."""

    def on_predict_batch_end(
        self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Act after a predict step, on what it returned."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add to a checkpoint that is about to be written, in place."""

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Read from a checkpoint before its weights are loaded."""

    def configure_model(self) -> None:
        """Create layers late, on the run's device; may run more than once."""

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Any = None,
    ) -> None:
        """Step the optimizer; override it to step differently.

        Args:
            epoch: Current epoch.
            batch_idx: Batch within the epoch.
            optimizer: The optimizer; its `step` runs `optimizer_closure`.
            optimizer_closure: Computes the loss and the gradients; it must be called.
        """
        optimizer.step(closure=optimizer_closure)

    def optimizer_zero_grad(
        self, epoch: int, batch_idx: int, optimizer: Optimizer
    ) -> None:
        """Clear gradients; override it to clear them differently."""
        optimizer.zero_grad()

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Compute gradients of `loss`; override it for another way."""
        loss.backward(*args, **kwargs)  # type: ignore[no-untyped-call]

    def lr_scheduler_step(self, scheduler: Any, metric: Any | None) -> None:
        """Step a scheduler; override it for schedulers with other arguments.

        Args:
            scheduler: The scheduler.
            metric: Value of its monitored metric, if it has one.
        """
        if metric is None:
            scheduler.step()
        else:
            scheduler.step(metric)
