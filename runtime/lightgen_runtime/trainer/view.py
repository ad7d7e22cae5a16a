"""Everything about a trainer that can be read but not changed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lightgen_runtime.callbacks.checkpoint import Checkpoint
from lightgen_runtime.callbacks.early_stopping import EarlyStopping
from lightgen_runtime.callbacks.gradient_accumulation_scheduler import (
    GradientAccumulationScheduler,
)
from lightgen_runtime.callbacks.progress import ProgressBar
from lightgen_runtime.trainer.flags import TrainerFlags
from lightgen_runtime.trainer.loop_views import FitLoopView

if TYPE_CHECKING:
    from torch.amp import GradScaler

    from lightgen_runtime.accelerators.accelerator import Accelerator
    from lightgen_runtime.callbacks.callback import Callback
    from lightgen_runtime.core.datamodule import LightningDataModule
    from lightgen_runtime.core.module import LightningModule
    from lightgen_runtime.core.optim import SchedulerConfig
    from lightgen_runtime.loops.predicted import Predicted
    from lightgen_runtime.loops.progress import Progress
    from lightgen_runtime.precision.base import Precision
    from lightgen_runtime.strategies import Strategy
    from lightgen_runtime.trainer.states import TrainerState


class TrainerView(TrainerFlags):
    """Read-only state of a trainer; `Trainer` adds what acts."""

    callbacks: list[Callback]
    state: TrainerState
    progress: Progress
    default_root_dir: str

    @property
    def precision_plugin(self) -> Precision:
        """What converts modules and batches, and what steps are computed in."""
        return self._parts.precision

    @property
    def scaler(self) -> GradScaler | None:
        """What scales the loss, in "16-mixed"."""
        return self._parts.precision.scaler

    # ---- processes and devices ----

    @property
    def strategy(self) -> Strategy:
        """Where processes and devices are."""
        return self._parts.strategy

    @property
    def accelerator(self) -> Accelerator:
        """What stands for the kind of device that the run uses."""
        return self._parts.accelerator

    @property
    def is_global_zero(self) -> bool:
        """Whether this is the process that writes and talks."""
        return self.strategy.is_global_zero

    @property
    def global_rank(self) -> int:
        """Number of this process among all."""
        return self.strategy.global_rank

    @property
    def local_rank(self) -> int:
        """Number of this process on its node."""
        return self.strategy.local_rank

    @property
    def node_rank(self) -> int:
        """Number of this node."""
        return self.strategy.node_rank

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return self.strategy.world_size

    @property
    def num_nodes(self) -> int:
        """Number of machines."""
        return self.world_size // self.num_devices

    @property
    def device_ids(self) -> list[int]:
        """Indices of the devices used on each node."""
        root = self.strategy.root_device
        devices = getattr(self.strategy, "parallel_devices", None) or [root]
        return [
            number if device.index is None else device.index
            for number, device in enumerate(devices)
        ]

    @property
    def num_devices(self) -> int:
        """Number of devices used on each node."""
        return len(self.device_ids)

    # ---- model, data, loggers ----

    @property
    def lightning_module(self) -> LightningModule:
        """The module of the current or last run; None before the first.

        Its type leaves None out, as most code reads it inside of a run.
        """
        return None if self._run is None else self._run.module  # type: ignore[return-value]

    @property
    def model(self) -> LightningModule | None:
        """The module of the current or last run, if any."""
        return None if self._run is None else self._run.module

    @property
    def datamodule(self) -> LightningDataModule | None:
        """The datamodule of the current or last run, if any."""
        return None if self._run is None else self._run.datamodule

    @property
    def optimizers(self) -> list[Any]:
        """The optimizers of the current or last fit."""
        return [] if self._run is None else list(self._run.plan.optimizers)

    @property
    def lr_scheduler_configs(self) -> list[SchedulerConfig]:
        """The schedulers of the current or last fit, and when they step."""
        return [] if self._run is None else list(self._run.plan.schedulers)

    @property
    def log_dir(self) -> str | None:
        """Folder of this run's files: the first logger's, else `default_root_dir`."""
        logger = self.logger
        return self.default_root_dir if logger is None else logger.log_dir

    @property
    def train_dataloader(self) -> Any:
        """The training loader, or the collection of several, of the current or last fit.

        It is made on first use.
        """
        return self._loaders("train")

    @property
    def val_dataloaders(self) -> Any:
        """The validation loader, or the collection of several as it was given."""
        return self._loaders("validate")

    @property
    def test_dataloaders(self) -> Any:
        """The test loader, or the collection of several as it was given."""
        return self._loaders("test")

    @property
    def predict_dataloaders(self) -> Any:
        """The loader to predict, or the collection of several as it was given."""
        return self._loaders("predict")

    def _loaders(self, stage: str) -> Any:
        if self._run is None or not self._run.source.has(stage):
            return None
        return self._run.source.loaders(stage)

    # ---- callbacks ----

    @property
    def checkpoint_callbacks(self) -> list[Checkpoint]:
        """Callbacks that write checkpoints."""
        return [c for c in self.callbacks if isinstance(c, Checkpoint)]

    @property
    def checkpoint_callback(self) -> Checkpoint | None:
        """The first of `checkpoint_callbacks`."""
        return next(iter(self.checkpoint_callbacks), None)

    @property
    def early_stopping_callbacks(self) -> list[EarlyStopping]:
        """Callbacks that stop a fit which no longer improves."""
        return [c for c in self.callbacks if isinstance(c, EarlyStopping)]

    @property
    def early_stopping_callback(self) -> EarlyStopping | None:
        """The first of `early_stopping_callbacks`."""
        return next(iter(self.early_stopping_callbacks), None)

    @property
    def progress_bar_callback(self) -> ProgressBar | None:
        """The progress bar."""
        bars = (c for c in self.callbacks if isinstance(c, ProgressBar))
        return next(bars, None)

    # ---- how far ----

    @property
    def current_epoch(self) -> int:
        """Epochs completed, which is the 0-based number of the running one."""
        return self.progress.current_epoch

    @property
    def global_step(self) -> int:
        """Optimizer steps taken."""
        return self.progress.global_step

    @property
    def is_last_batch(self) -> bool:
        """Whether the running training batch is its epoch's last."""
        return self._run is not None and self._run.on_last_batch

    @property
    def num_training_batches(self) -> int | float:
        """Batches in a training epoch; infinity if the loader has no length."""
        if self._run is None or not self._run.source.has("train"):
            return float("inf")
        return self._run.source.train().num_batches

    @property
    def num_val_batches(self) -> list[int | float]:
        """Validation batches, by loader."""
        return self._batches("validate")

    @property
    def num_sanity_val_batches(self) -> list[int | float]:
        """Validation batches tried before training, by loader."""
        steps = self.num_sanity_val_steps
        return [min(batches, steps) for batches in self.num_val_batches]

    @property
    def num_test_batches(self) -> list[int | float]:
        """Test batches, by loader."""
        return self._batches("test")

    @property
    def num_predict_batches(self) -> list[int | float]:
        """Batches to predict, by loader."""
        return self._batches("predict")

    @property
    def predict_loop(self) -> Predicted:
        """What the current or last prediction has collected, for prediction writers."""
        if self._run is None:
            raise RuntimeError("this trainer has not predicted yet")
        return self._run.predicted

    @property
    def fit_loop(self) -> FitLoopView:
        """Limits and counters of fitting under the names that Lightning's loop has."""
        return FitLoopView(self)

    def _batches(self, stage: str) -> list[int | float]:
        if self._run is None or not self._run.source.has(stage):
            return []
        return self._run.source.batches(stage)

    @property
    def enable_validation(self) -> bool:
        """Whether the fit validates."""
        return self._run is not None and self._run.validates

    @property
    def val_check_batch(self) -> int | float | None:
        """Batches between validations; None by the clock, and before the loader is there.

        If the loader has no length, its limit; infinity if it has none either.
        """
        run = self._run
        if run is None or run.val_clock is not None or not run.source.opened("train"):
            return None
        at_epoch_ends = run.val_interval == float("inf")
        return self.num_training_batches if at_epoch_ends else run.val_interval

    @property
    def estimated_stepping_batches(self) -> int | float:
        """Optimizer steps that the fit will take; infinity if nothing limits it.

        Usable in `configure_optimizers`; the training loader is made on first use.
        """
        if self.max_epochs == -1:
            return float("inf") if self.max_steps == -1 else self.max_steps
        if self._run is None:
            raise RuntimeError(
                "`estimated_stepping_batches` is known inside a fit only"
            )
        batches = self._run.source.train().epoch_batches
        if batches == float("inf"):
            return self.max_steps if self.max_steps != -1 else float("inf")
        total = sum(
            math.ceil(batches / self._accumulation_in(epoch))
            for epoch in range(max(self.max_epochs, 1))
        )
        return total if self.max_steps == -1 else min(total, self.max_steps)

    def _accumulation_in(self, epoch: int) -> int:
        for callback in self.callbacks:
            if isinstance(callback, GradientAccumulationScheduler):
                return callback.get_accumulate_grad_batches(epoch)
        return self.accumulate_grad_batches

    # ---- stage ----

    @property
    def training(self) -> bool:
        """Whether training batches are running."""
        return self.state.stage == "train"

    @property
    def sanity_checking(self) -> bool:
        """Whether the sanity check is running."""
        return self.state.stage == "sanity_check"

    @property
    def validating(self) -> bool:
        """Whether validation is running."""
        return self.state.stage == "validate"

    @property
    def testing(self) -> bool:
        """Whether testing is running."""
        return self.state.stage == "test"

    @property
    def predicting(self) -> bool:
        """Whether predicting is running."""
        return self.state.stage == "predict"

    @property
    def evaluating(self) -> bool:
        """Whether validation, the sanity check or testing is running."""
        return self.validating or self.sanity_checking or self.testing

    @property
    def interrupted(self) -> bool:
        """Whether an exception or a signal ended the last run."""
        return self.state.status == "interrupted"

    # ---- metrics ----

    @property
    def callback_metrics(self) -> dict[str, Tensor]:
        """Everything logged so far that callbacks can watch, by key."""
        return {} if self._run is None else self._run.report.callback_metrics

    @property
    def logged_metrics(self) -> dict[str, Tensor]:
        """What loggers are sent, by key, now."""
        return {} if self._run is None else self._run.report.logged_metrics

    @property
    def progress_bar_metrics(self) -> dict[str, float]:
        """What the progress bar shows. Cost: one host sync."""
        return {} if self._run is None else self._run.report.progress_bar_metrics

    def describe_hooks(self) -> str:
        """Return the lifecycle of the current or last run, with who listens to what."""
        if self._run is None:
            return "no run yet"
        lines = []
        for hook, listeners in self._run.hooks.describe():
            heard = ", ".join(listeners) if listeners else "-"
            lines.append(f"{hook.name:<30} {hook.where:<40} {heard}")
        return "\n".join(lines)
