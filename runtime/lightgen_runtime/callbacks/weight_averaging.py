"""Training one set of weights while validating and saving their running average."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

from lightgen_runtime.callbacks.callback import Callback
from lightgen_runtime.utilities.rank_zero import rank_zero_info, rank_zero_warn

if TYPE_CHECKING:
    from lightgen_runtime.callbacks.callback import StepOutput
    from lightgen_runtime.core.module import LightningModule
    from lightgen_runtime.trainer.trainer import Trainer

_PREFIX = "module."  # of the weights among the state of an `AveragedModel`


class WeightAveraging(Callback):
    """Average the weights after each optimizer step; end the fit with the average.

    Validation inside the fit sees the average. Checkpoints hold it as their `state_dict`,
    so that everybody who loads one gets it, and beside it what training goes on from.

    Args:
        device: Where the average is kept; None is the module's device.
        use_buffers: Average buffers too, such as batch norm statistics.
        kwargs: Further arguments of `torch.optim.swa_utils.AveragedModel`; `avg_fn` or
            `multi_avg_fn` decides what is averaged how.

    Compat: unlike Lightning, evaluating a checkpoint leaves the module with the averaged
    weights that were evaluated, not with those beside them; and a file of weights alone
    holds the average too.
    """

    def __init__(
        self,
        device: torch.device | str | int | None = None,
        use_buffers: bool = True,
        **kwargs: Any,
    ) -> None:
        self._device = torch.device(device) if isinstance(device, str) else device
        self._use_buffers = use_buffers
        self._kwargs = kwargs
        self._average_model: AveragedModel | None = None
        self._swapped = False
        self._latest_update_step = 0
        self._latest_update_epoch = -1

    def should_update(
        self, step_idx: int | None = None, epoch_idx: int | None = None
    ) -> bool:
        """Tell whether to average now; override it to choose.

        Args:
            step_idx: The optimizer step just taken, from 0; None at the end of an epoch.
            epoch_idx: The epoch that ends, from 0; None after a step.
        """
        return step_idx is not None

    def state_dict(self) -> dict[str, Any]:
        """Return up to which step weights are in the average."""
        return {"latest_update_step": self._latest_update_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on behind that step."""
        self._latest_update_step = state_dict["latest_update_step"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Drop the average of an earlier fit."""
        if stage == "fit":
            self._average_model = None
            self._swapped = False
            self._latest_update_step = 0
            self._latest_update_epoch = -1

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Place the average, which begins as a copy of the weights."""
        average = self._average(pl_module)
        average.to(pl_module.device if self._device is None else self._device)
        # torch asks it for its value at each update: on a GPU that would wait.
        average.n_averaged = average.n_averaged.cpu()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: StepOutput,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Average, if this batch made an optimizer step."""
        step = trainer.progress.global_step
        if step > self._latest_update_step and self.should_update(step_idx=step - 1):
            self._average(pl_module).update_parameters(pl_module)
            self._latest_update_step = step

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Average, if the end of an epoch is the time for it."""
        epoch = trainer.current_epoch
        if epoch > self._latest_update_epoch and self.should_update(epoch_idx=epoch):
            self._average(pl_module).update_parameters(pl_module)
            self._latest_update_epoch = epoch

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the module the averaged weights."""
        for average, current in self._pairs(pl_module):
            current.copy_(average)

    def on_validation_epoch_start(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> None:
        """Validate the average."""
        if trainer.state.fn == "fit":
            self._swap(pl_module)

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Validate the average, also where a fit is resumed inside a validation."""
        if trainer.state.fn == "fit" and not self._swapped:
            self._swap(pl_module)

    def on_validation_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> None:
        """Train the weights again."""
        if self._swapped:
            self._swap(pl_module)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Undo the exchange if validation failed, before anybody saves."""
        if self._swapped:
            self._swap(pl_module)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Store the average as the weights, and the weights beside it."""
        if self._average_model is None or trainer.state.fn != "fit":
            return
        current = checkpoint["state_dict"]
        average = self._average_state()
        if self._swapped:  # somebody saves in the middle of validation
            average, current = current, average
        checkpoint["state_dict"] = average
        checkpoint["current_model_state"] = current
        checkpoint["averaging_state"] = {
            name: value
            for name, value in self._average_model.state_dict().items()
            if not name.startswith(_PREFIX)
        }

    def weights_to_save(
        self, trainer: Trainer, weights: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the average, for a file that holds weights and nothing else.

        Args:
            trainer: The running trainer.
            weights: The `state_dict` of the module as it is.
        """
        has_average = self._average_model is not None and trainer.state.fn == "fit"
        return self._average_state() if has_average and not self._swapped else weights

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take both sets of weights back."""
        average = self._average(pl_module)
        if "current_model_state" not in checkpoint:
            # The copy is of what the module has just loaded.
            rank_zero_warn(
                "the checkpoint was written without weight averaging: the average begins "
                "with its weights"
            )
            return
        weights = {_PREFIX + key: v for key, v in checkpoint["state_dict"].items()}
        average.load_state_dict(weights | checkpoint["averaging_state"])
        pl_module.load_state_dict(checkpoint["current_model_state"])
        rank_zero_info("Training goes on from the weights beside the averaged ones.")

    def _average_state(self) -> dict[str, Any]:
        assert self._average_model is not None
        return {
            name.removeprefix(_PREFIX): value
            for name, value in self._average_model.state_dict().items()
            if name.startswith(_PREFIX)
        }

    def _average(self, pl_module: LightningModule) -> AveragedModel:
        # Not in `setup`: `configure_model` may build the layers after that.
        if self._average_model is None:
            self._average_model = AveragedModel(
                pl_module, use_buffers=self._use_buffers, **self._kwargs
            )
        return self._average_model

    def _swap(self, pl_module: LightningModule) -> None:
        for average, current in self._pairs(pl_module):
            former = average.clone()
            average.copy_(current)
            current.copy_(former)
        self._swapped = not self._swapped

    def _pairs(self, pl_module: LightningModule) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (average, current) for each parameter and buffer, free of graphs."""
        average = self._average(pl_module).module
        for ours, theirs in zip(_tensors(average), _tensors(pl_module), strict=True):
            yield ours.data, theirs.data


class EMAWeightAveraging(WeightAveraging):
    """Keep an exponential moving average of the weights.

    Args:
        device: As in `WeightAveraging`.
        use_buffers: Likewise.
        decay: Share of the old average in the new one; 0 to 1.
        update_every_n_steps: Optimizer steps between two updates; 0 for none by steps.
        update_starting_at_step: First step, from 0, that updates.
        update_starting_at_epoch: First epoch, from 0, whose end updates; None for none.
        kwargs: Further arguments of `torch.optim.swa_utils.AveragedModel`.
    """

    def __init__(
        self,
        device: torch.device | str | int | None = None,
        use_buffers: bool = True,
        decay: float = 0.999,
        update_every_n_steps: int = 1,
        update_starting_at_step: int | None = None,
        update_starting_at_epoch: int | None = None,
        **kwargs: Any,
    ) -> None:
        average = get_ema_avg_fn(decay)  # type: ignore[no-untyped-call]
        super().__init__(device, use_buffers, avg_fn=average, **kwargs)
        self.update_every_n_steps = update_every_n_steps
        self.update_starting_at_step = update_starting_at_step
        self.update_starting_at_epoch = update_starting_at_epoch

    def should_update(
        self, step_idx: int | None = None, epoch_idx: int | None = None
    ) -> bool:
        """See `WeightAveraging.should_update`."""
        if step_idx is not None:
            every, first = self.update_every_n_steps, self.update_starting_at_step or 0
            return every > 0 and step_idx % every == 0 and step_idx >= first
        first_epoch = self.update_starting_at_epoch
        return first_epoch is not None and (epoch_idx or 0) >= first_epoch


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    return chain(module.parameters(), module.buffers())
