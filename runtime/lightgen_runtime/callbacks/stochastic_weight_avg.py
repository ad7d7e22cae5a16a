"""Stochastic weight averaging: the mean over the last epochs of a fit.

Source: Izmailov et al., Averaging Weights Leads to Wider Optima and Better
Generalization, 2018 (arXiv:1803.05407).
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.optim.swa_utils import SWALR

from lightgen_runtime.callbacks.callback import Callback
from lightgen_runtime.core.optim import SchedulerConfig
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.rank_zero import rank_zero_info, rank_zero_warn

if TYPE_CHECKING:
    from lightgen_runtime.core.module import LightningModule
    from lightgen_runtime.trainer.trainer import Trainer

AveragingFunction = Callable[[Tensor, Tensor, Tensor], Tensor]


class StochasticWeightAveraging(Callback):
    """Average the weights of the last epochs, trained at a learning rate of their own.

    From the start of epoch `swa_epoch_start` on, the learning rate moves to `swa_lrs`,
    and at the start of each epoch the weights enter the average. The fit ends with the
    average. If the model has batch norm, one more epoch follows in which the average only
    sees the training data, for its statistics.

    Args:
        swa_lrs: The learning rate: one, or one for each parameter group.
        swa_epoch_start: First epoch: its number from 1 on, or a share of `max_epochs`.
        annealing_epochs: Epochs over which the learning rate moves.
        annealing_strategy: How it moves: "cos" or "linear".
        avg_fn: `avg_fn(average, weights, number of weights so far)`; None is the mean.
        device: Where the average is kept; None is the module's device.

    Raises:
        MisconfigurationException: At construction for an argument that is not accepted;
            at the start of a fit for several optimizers or schedulers, or without
            `max_epochs`.

    Compat: Lightning lets the optimizer step once more after the statistics epoch. Here
    none follows, so that the result is the average.
    """

    def __init__(
        self,
        swa_lrs: float | list[float],
        swa_epoch_start: int | float = 0.8,
        annealing_epochs: int = 10,
        annealing_strategy: str = "cos",
        avg_fn: AveragingFunction | None = None,
        device: torch.device | str | None = "cpu",
    ) -> None:
        _check(swa_lrs, swa_epoch_start, annealing_epochs, annealing_strategy)
        if avg_fn is not None and not callable(avg_fn):
            raise MisconfigurationException(
                f"`StochasticWeightAveraging(avg_fn={avg_fn!r})`: a function is needed"
            )
        self._swa_lrs = swa_lrs
        self._swa_epoch_start = swa_epoch_start
        self._annealing_epochs = annealing_epochs
        self._annealing_strategy = annealing_strategy
        self._avg_fn = avg_fn or self.avg_fn
        self._device = device
        self._forget()

    def _forget(self) -> None:
        self.n_averaged = torch.tensor(0, dtype=torch.long)
        self._latest_update_epoch = -1
        self._swa_scheduler: SWALR | None = None
        self._average_model: LightningModule | None = None
        self._restored: dict[str, Any] = {}
        self._momenta: dict[_BatchNorm, float | None] = {}
        self._max_epochs = 0
        self._first_epoch = 1

    @property
    def swa_start(self) -> int:
        """The first epoch that averages, from 0."""
        return max(self._first_epoch - 1, 0)

    @property
    def swa_end(self) -> int:
        """The last epoch that averages, from 0."""
        return self._max_epochs - 1

    def state_dict(self) -> dict[str, Any]:
        """Return the average, how many weights are in it, and the schedule."""
        scheduler, average = self._swa_scheduler, self._average_model
        return {
            "n_averaged": int(self.n_averaged),
            "latest_update_epoch": self._latest_update_epoch,
            "scheduler_state": None if scheduler is None else scheduler.state_dict(),
            "average_model_state": None if average is None else average.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep it until the optimizer exists."""
        self.n_averaged = torch.tensor(state_dict["n_averaged"], dtype=torch.long)
        self._latest_update_epoch = state_dict["latest_update_epoch"]
        self._restored = state_dict

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin a fit without the average of an earlier one."""
        if stage == "fit":
            self._forget()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what cannot work, and make room for the average."""
        run = pl_module._attached_run()
        for what, found in (
            ("optimizer", run.plan.optimizers),
            ("scheduler", run.plan.schedulers),
        ):
            if len(found) > 1:
                raise MisconfigurationException(
                    f"`StochasticWeightAveraging` works with one {what}, and "
                    f"`configure_optimizers` returned {len(found)}"
                )
        if trainer.max_epochs < 1:
            raise MisconfigurationException(
                "`StochasticWeightAveraging` averages the last epochs, so it must know "
                "which is the last: give `Trainer(max_epochs=...)`"
            )
        start = self._swa_epoch_start
        self._max_epochs = trainer.max_epochs
        self._first_epoch = (
            int(self._max_epochs * start) if isinstance(start, float) else start
        )
        self._average_model = deepcopy(pl_module).to(self._device or pl_module.device)
        if self.pl_module_contains_batch_norm(pl_module):
            run.extra_epochs = 1
        if self._restored.get("average_model_state") is not None:
            self._average_model.load_state_dict(self._restored["average_model_state"])
        if self._restored.get("scheduler_state") is not None:
            # Its state is in the checkpoint twice; the optimizer's, which comes next,
            # overwrites what making a scheduler does to the learning rate.
            self._replace_scheduler(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with the statistics epoch if a resumed fit is in its middle."""
        in_epoch = trainer.progress.batch_idx > 0
        if in_epoch and trainer.current_epoch == self.swa_end + 1:
            self._only_look(pl_module)

    def on_train_epoch_start(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> None:
        """Average; after the last epoch, put the average to use."""
        epoch = trainer.current_epoch
        if self.swa_start <= epoch <= self.swa_end:
            if self._swa_scheduler is None:
                if epoch != self.swa_start:
                    rank_zero_warn(
                        f"stochastic weight averaging begins at epoch {epoch} instead of "
                        f"{self.swa_start}: the checkpoint holds no average"
                    )
                self._replace_scheduler(pl_module)
            if epoch > self._latest_update_epoch:
                assert self._average_model is not None
                self.update_parameters(
                    self._average_model, pl_module, self.n_averaged, self._avg_fn
                )
                self._latest_update_epoch = epoch
        elif epoch == self.swa_end + 1:
            assert self._average_model is not None
            self.transfer_weights(self._average_model, pl_module)
            self.reset_batch_norm_and_save_state(pl_module)
            self._only_look(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the module with the average."""
        if self._momenta:
            self.reset_momenta()
        elif trainer.current_epoch == self.swa_end + 1 and self._swa_scheduler:
            assert self._average_model is not None
            self.transfer_weights(self._average_model, pl_module)

    def _only_look(self, pl_module: LightningModule) -> None:
        """Let this epoch's batches pass through the model and train nothing."""
        pl_module._attached_run().forward_only = True
        if not self._momenta:
            self._save_momenta(pl_module)

    def _replace_scheduler(self, pl_module: LightningModule) -> None:
        plan = pl_module._attached_run().plan
        optimizer: Optimizer = plan.optimizers[0]
        rates = self._swa_lrs
        if not isinstance(rates, list):
            rates = [rates] * len(optimizer.param_groups)
        if len(rates) != len(optimizer.param_groups):
            raise MisconfigurationException(
                f"`StochasticWeightAveraging` has {len(rates)} learning rates, and the "
                f"optimizer {len(optimizer.param_groups)} parameter groups"
            )
        for rate, group in zip(rates, optimizer.param_groups, strict=True):
            group["initial_lr"] = rate
        cosine = self._annealing_strategy == "cos"
        self._swa_scheduler = SWALR(
            optimizer,
            swa_lr=rates,  # type: ignore[arg-type] # it takes a list too
            anneal_epochs=self._annealing_epochs,
            anneal_strategy="cos" if cosine else "linear",
            last_epoch=self._max_epochs if cosine else -1,
        )
        if plan.schedulers:
            former = type(plan.schedulers[0].scheduler).__name__
            rank_zero_info(f"SWALR takes the place of {former}.")
        plan.schedulers[:] = [SchedulerConfig(self._swa_scheduler)]

    @staticmethod
    def pl_module_contains_batch_norm(pl_module: nn.Module) -> bool:
        """Tell whether any layer is a batch norm."""
        return any(isinstance(module, _BatchNorm) for module in pl_module.modules())

    def reset_batch_norm_and_save_state(self, pl_module: nn.Module) -> None:
        """Clear every batch norm's statistics, to become the mean over what follows."""
        self._save_momenta(pl_module)
        for module in self._momenta:
            module.reset_running_stats()

    def _save_momenta(self, pl_module: nn.Module) -> None:
        for module in pl_module.modules():
            if isinstance(module, _BatchNorm):
                self._momenta[module] = module.momentum
                module.momentum = None  # torch: a plain mean over all batches

    def reset_momenta(self) -> None:
        """Give every batch norm its momentum back."""
        for module, momentum in self._momenta.items():
            module.momentum = momentum
        self._momenta = {}

    @staticmethod
    def transfer_weights(src_pl_module: nn.Module, dst_pl_module: nn.Module) -> None:
        """Copy the parameters of one module into another, across devices."""
        pairs = zip(src_pl_module.parameters(), dst_pl_module.parameters(), strict=True)
        for source, target in pairs:
            target.detach().copy_(source.detach())

    @staticmethod
    def update_parameters(
        average_model: nn.Module,
        model: nn.Module,
        n_averaged: Tensor,
        avg_fn: AveragingFunction,
    ) -> None:
        """Take a model's weights into the average, in place, and count them.

        Args:
            average_model: Holds the average.
            model: Holds the weights.
            n_averaged: How many weights are in the average; it is raised by one.
            avg_fn: See the class.
        """
        first = int(n_averaged) == 0
        pairs = zip(average_model.parameters(), model.parameters(), strict=True)
        for average, current in pairs:
            old, new = average.detach(), current.detach().to(average.device)
            if not first:
                new = avg_fn(old, new, n_averaged.to(old.device))
            old.copy_(new)
        n_averaged += 1

    @staticmethod
    def avg_fn(
        averaged_model_parameter: Tensor, model_parameter: Tensor, num_averaged: Tensor
    ) -> Tensor:
        """Return the mean with one more value in it."""
        change = model_parameter - averaged_model_parameter
        return averaged_model_parameter + change / (num_averaged + 1)


def _check(rates: Any, start: Any, epochs: Any, strategy: Any) -> None:
    name = "StochasticWeightAveraging"
    listed = rates if isinstance(rates, list) else [rates]
    if not listed or not all(isinstance(r, (int, float)) and r > 0 for r in listed):
        raise MisconfigurationException(
            f"`{name}(swa_lrs={rates!r})`: a number above 0 is accepted, or a list of "
            "them with one for each parameter group"
        )
    whole = isinstance(start, int) and start >= 1
    share = isinstance(start, float) and 0.0 <= start <= 1.0
    if not whole and not share:
        raise MisconfigurationException(
            f"`{name}(swa_epoch_start={start!r})`: an epoch from 1 on (1, 2, ...) or a "
            "share from 0.0 to 1.0 is accepted"
        )
    if not isinstance(epochs, int) or epochs < 0:
        raise MisconfigurationException(
            f"`{name}(annealing_epochs={epochs!r})`: a whole number of at least 0 is "
            "accepted"
        )
    if strategy not in ("cos", "linear"):
        raise MisconfigurationException(
            f"`{name}(annealing_strategy={strategy!r})`: 'cos' and 'linear' are accepted"
        )
