"""Find a learning rate by training a little with each of many."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightgen_runtime.callbacks.callback import Callback
from lightgen_runtime.core.optim import SchedulerConfig
from lightgen_runtime.core.tunable import find_tunable, set_tunable
from lightgen_runtime.utilities.exceptions import MisconfigurationException, TunerExit
from lightgen_runtime.utilities.imports import import_extra
from lightgen_runtime.utilities.rank_zero import rank_zero_info, rank_zero_warn

if TYPE_CHECKING:
    from lightgen_runtime.core.module import LightningModule
    from lightgen_runtime.trainer.trainer import Trainer

MODES = ("linear", "exponential")
# Source: Lightning's; the weight of the past in the smoothed loss.
SMOOTHING = 0.98
LR_NAMES = ["lr", "learning_rate"]


class _LRFinder:
    """What a range test found.

    Attributes:
        results: "lr" and "loss", one entry a step; losses are smoothed.
    """

    def __init__(
        self, mode: str, lr_min: float, lr_max: float, num_training: int
    ) -> None:
        self.mode = mode
        self.lr_min = lr_min
        self.lr_max = lr_max
        self.num_training = num_training
        self.results: dict[str, list[float]] = {"lr": [], "loss": []}
        self._optimal_idx: int | None = None

    def suggestion(self, skip_begin: int = 10, skip_end: int = 1) -> float | None:
        """Return the learning rate at which the loss falls most steeply.

        Args:
            skip_begin: Steps at the beginning that do not count.
            skip_end: Steps at the end that do not count.

        Returns:
            None, with a warning, if fewer than two finite losses count.
        """
        lrs, losses = self.results["lr"], self.results["loss"]
        counted = [
            number
            for number in range(len(losses))[skip_begin : -skip_end or None]
            if math.isfinite(losses[number])
        ]
        self._optimal_idx = None
        if len(counted) < 2:
            rank_zero_warn(
                f"the learning rate finder has {len(losses)} losses, too few to suggest a "
                f"rate from ({skip_begin} at the beginning and {skip_end} at the end do not "
                "count). Let it run for more steps, or give it more data."
            )
            return None
        slopes = torch.gradient(
            torch.tensor([losses[number] for number in counted]),
            spacing=[torch.tensor([lrs[number] for number in counted])],
        )[0]
        self._optimal_idx = counted[int(torch.argmin(slopes))]
        return lrs[self._optimal_idx]

    def plot(self, suggest: bool = False, show: bool = False, ax: Any = None) -> Any:
        """Plot loss over learning rate; needs `matplotlib`.

        Args:
            suggest: Mark the suggestion.
            show: Open a window.
            ax: Axes to draw on; new ones by default.

        Returns:
            The figure.
        """
        pyplot = import_extra(
            "matplotlib.pyplot",
            install="pip install matplotlib",
            used_by="plotting what the learning rate finder found",
        )
        if ax is None:
            _, ax = pyplot.subplots()
        lrs, losses = self.results["lr"], self.results["loss"]
        ax.plot(lrs, losses)
        if self.mode == "exponential":
            ax.set_xscale("log")
        ax.set_xlabel("Learning rate")
        ax.set_ylabel("Loss")
        if suggest:
            self.suggestion()
        best = self._optimal_idx if suggest else None
        if best is not None:
            ax.plot(lrs[best], losses[best], markersize=10, marker="o", color="red")
        if show:
            pyplot.show()
        return ax.figure


class LearningRateFinder(Callback):
    """Before a fit, train with a rising learning rate and take a good one from it.

    The test leaves no trace in weights, optimizer, counters and random numbers.

    Args:
        min_lr: Where to start.
        max_lr: Where to end.
        num_training_steps: How many learning rates to try.
        mode: "exponential" or "linear": how the rate rises.
        early_stop_threshold: Stop when the loss exceeds the best by this factor; None
            never.
        update_attr: Set the module's attribute, and the optimizer, to the suggestion.
        attr_name: The attribute; by default `lr` or `learning_rate`, of the module or its
            hyperparameters.

    Raises:
        ValueError: `mode` is neither.

    Compat: a fit that is resumed keeps the rate of its checkpoint, and the attribute gets
    what was found then; no test is run again.
    """

    SUPPORTED_MODES = MODES

    def __init__(
        self,
        min_lr: float = 1e-8,
        max_lr: float = 1,
        num_training_steps: int = 100,
        mode: str = "exponential",
        early_stop_threshold: float | None = 4.0,
        update_attr: bool = True,
        attr_name: str = "",
    ) -> None:
        if mode.lower() not in MODES:
            raise ValueError(
                f"`LearningRateFinder(mode={mode!r})`: accepted are "
                f"{', '.join(map(repr, MODES))}"
            )
        self._mode = mode.lower()
        self._min_lr = min_lr
        self._max_lr = max_lr
        self._num_training_steps = num_training_steps
        self._early_stop_threshold = early_stop_threshold
        self._update_attr = update_attr
        self._attr_name = attr_name
        self._early_exit = False
        self.optimal_lr: _LRFinder | None = None
        self._found: dict[str, Any] = {}  # name and value that were set

    def state_dict(self) -> dict[str, Any]:
        """Return what was found and set."""
        return dict(self._found)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what was found before the checkpoint."""
        self._found = dict(state_dict)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run the test; override to run it at other moments."""
        if trainer.ckpt_path is None:
            self.lr_find(trainer, pl_module)
            return
        if self._found:
            set_tunable(pl_module, trainer.datamodule, **self._found)
        rank_zero_info(
            "The learning rate finder does not run: a resumed fit keeps its rate."
        )

    def lr_find(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run the test now and keep what it found in `optimal_lr`.

        Raises:
            MisconfigurationException: The fit has several optimizers, or there is no
                attribute to set.
        """
        if trainer.fast_dev_run:
            rank_zero_warn("`fast_dev_run` runs no learning rate finder")
        else:
            self.optimal_lr = self._find(trainer, pl_module)
        if self._early_exit:
            raise TunerExit

    def _find(self, trainer: Trainer, pl_module: LightningModule) -> _LRFinder:
        names = [self._attr_name] if self._attr_name else LR_NAMES
        name = ""
        if self._update_attr:
            name = find_tunable(pl_module, trainer.datamodule, names)
        steps = self._num_training_steps
        found = _LRFinder(self._mode, self._min_lr, self._max_lr, steps)
        with trainer.trial() as trial:
            optimizer = _only(trial.optimizers)
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] = self._min_lr
            sweep = _Sweep(optimizer, self._max_lr, steps, self._mode == "linear")
            recorder = _Recorder(found, optimizer, self._early_stop_threshold)
            trial.attempt(
                [recorder],
                [SchedulerConfig(sweep, interval="step")],
                max_steps=steps,
                limit_val_batches=steps,
            )
        found.results = trainer.strategy.broadcast(found.results)
        lr = found.suggestion() if self._update_attr else None
        if lr is not None:
            self._found = {"name": name, "value": lr}
            set_tunable(pl_module, trainer.datamodule, **self._found)
            for group in _only(trial.optimizers).param_groups:
                group["lr"] = lr
            rank_zero_info(f"Learning rate set to {lr}")
        return found


class _Sweep(LRScheduler):
    """Raises the rate from its first value to `end`, in `steps` steps."""

    def __init__(
        self, optimizer: Optimizer, end: float, steps: int, linear: bool
    ) -> None:
        self._end = end
        self._steps = steps
        self._linear = linear
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        bases = list(self.base_lrs)
        if self.last_epoch == 0:
            return bases
        share = (self.last_epoch + 1) / self._steps
        if self._linear:
            return [base + share * (self._end - base) for base in bases]
        return [base * (self._end / base) ** share for base in bases]


class _Recorder(Callback):
    """Notes rate and smoothed loss of each step, and stops when the loss runs away."""

    def __init__(
        self, found: _LRFinder, optimizer: Optimizer, threshold: float | None
    ) -> None:
        self._results = found.results
        self._optimizer = optimizer
        self._threshold = threshold
        self._average = 0.0
        self._best = 0.0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self._results["lr"].append(self._optimizer.param_groups[0]["lr"])

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches != 0:
            return
        if not outputs or "loss" not in outputs:
            self._results["loss"].append(float("nan"))  # a batch that was skipped
            return
        step = trainer.global_step
        loss = float(outputs["loss"])
        self._average = SMOOTHING * self._average + (1 - SMOOTHING) * loss
        smoothed = self._average / (1 - SMOOTHING ** (step + 1))
        threshold = self._threshold
        runs_away = (
            threshold is not None and step > 1 and smoothed > threshold * self._best
        )
        if trainer.strategy.broadcast(runs_away):
            trainer.should_stop = True
        if step == 1 or smoothed < self._best:
            self._best = smoothed
        self._results["loss"].append(smoothed)


def _only(optimizers: list[Optimizer]) -> Optimizer:
    if len(optimizers) != 1:
        raise MisconfigurationException(
            f"the learning rate finder works with one optimizer; `configure_optimizers` "
            f"returned {len(optimizers)}"
        )
    return optimizers[0]
