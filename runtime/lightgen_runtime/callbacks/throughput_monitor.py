"""Reporting how fast a run is."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch

from lightgen_runtime.callbacks.callback import Callback
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.throughput import Throughput, get_available_flops

if TYPE_CHECKING:
    from lightgen_runtime.callbacks.callback import StepOutput
    from lightgen_runtime.core.module import LightningModule
    from lightgen_runtime.trainer.trainer import Trainer

_STAGES = ("train", "validate", "test", "predict")
_DTYPES = {"bf16": torch.bfloat16, "16": torch.float16, "64": torch.float64}


class _Stage:
    """One stage's rates, and the batches that are not in them yet."""

    def __init__(self, name: str, throughput: Throughput) -> None:
        self.name = name
        self.throughput = throughput
        self.start()

    def start(self) -> None:
        """Begin to count."""
        self.throughput.reset()
        self.pending: list[tuple[float, int, int | None]] = []  # clock, samples, items
        self.batches = self.samples = self.lengths = 0
        self.started = perf_counter()

    def flush(self, flops: int | None) -> None:
        """Take the pending batches into the rates."""
        for clock, samples, lengths in self.pending:
            self.batches += 1
            self.samples += samples
            self.lengths += lengths or 0
            self.throughput.update(
                time=clock - self.started,
                batches=self.batches,
                samples=self.samples,
                lengths=None if lengths is None else self.lengths,
                flops=flops,
            )
        self.pending = []


class ThroughputMonitor(Callback):
    """Send batches, samples and items a second to the loggers, at their cadence.

    A module with an attribute `flops_per_batch` gets its operations a second reported,
    and the share of the device's peak where that is known; see
    `lightgen_runtime.utilities.throughput.measure_flops`. Validation does not count as
    training time.

    Args:
        batch_size_fn: Returns the number of samples in a batch.
        length_fn: Returns the number of items (tokens, say) in a batch.
        kwargs: Further arguments of `Throughput`: `window_size`, `separator`.

    Raises:
        MisconfigurationException: The trainer has no logger.

    Cost: one call a batch, beside those of the two functions; on CUDA, host and device
        are synchronised only where a report is due.
    """

    def __init__(
        self,
        batch_size_fn: Callable[[Any], int],
        length_fn: Callable[[Any], int] | None = None,
        **kwargs: Any,
    ) -> None:
        self.batch_size_fn = batch_size_fn
        self.length_fn = length_fn
        self.kwargs = kwargs
        self.available_flops: int | None = None
        self._stages: dict[str, _Stage] = {}
        self._every: float = inf  # optimizer steps between two reports
        self._waits = False  # for the device, before the clock is read

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find out what the device can do."""
        if not trainer.loggers:
            raise MisconfigurationException(
                "`ThroughputMonitor` with `Trainer(logger=False)` has nowhere to report "
                "to: add a logger or remove the callback"
            )
        device = trainer.strategy.root_device
        dtype = _DTYPES.get(trainer.precision.partition("-")[0], torch.float32)
        self.available_flops = get_available_flops(device, dtype)
        self._every = trainer.log_every_n_steps or inf
        self._waits = device.type == "cuda"
        self._stages = {
            name: _Stage(name, self._throughput(trainer)) for name in _STAGES
        }

    def _throughput(self, trainer: Trainer) -> Throughput:
        arguments = {
            "available_flops": self.available_flops,
            "world_size": trainer.world_size,
            **self.kwargs,
        }
        return Throughput(**arguments)

    def _count(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        stage: _Stage,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count a batch of an evaluation, and report it if that is due."""
        due = (batch_idx + 1) % self._every == 0
        if due and self._waits:
            torch.cuda.synchronize()
        length = None if self.length_fn is None else self.length_fn(batch)
        stage.pending.append((perf_counter(), self.batch_size_fn(batch), length))
        if due:
            counted = stage.batches + len(stage.pending)
            self._report(trainer, pl_module, stage, None, counted)

    def _report(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        stage: _Stage,
        epoch: int | None,
        step: int,
    ) -> None:
        stage.flush(getattr(pl_module, "flops_per_batch", None))
        if not trainer.is_global_zero:
            return
        prefix = f"{stage.name}{stage.throughput.separator}"
        values = stage.throughput.compute().items()
        metrics = {f"{prefix}{name}": value for name, value in values}
        pl_module._attached_run().report.send(metrics, epoch, step)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._stages["train"].start()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: StepOutput,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count the batch; report where a step is complete and due."""
        progress, stage = trainer.progress, self._stages["train"]
        due = (progress.batches_that_stepped + 1) % self._every == 0 and (
            progress.is_last_batch
            or (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        )
        if due and self._waits:
            torch.cuda.synchronize()  # else the clock is ahead of the device
        length = None if self.length_fn is None else self.length_fn(batch)
        stage.pending.append((perf_counter(), self.batch_size_fn(batch), length))
        if due:
            epoch, step = progress.current_epoch, progress.batches_that_stepped
            self._report(trainer, pl_module, stage, epoch, step)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start validation's clock."""
        if not trainer.sanity_checking:
            self._stages["validate"].start()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: StepOutput,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the batch."""
        if not trainer.sanity_checking:
            stage = self._stages["validate"]
            self._count(trainer, pl_module, stage, batch, batch_idx)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take what passed since the last training batch off the training time."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        train = self._stages["train"]
        train.flush(getattr(pl_module, "flops_per_batch", None))
        train.started = perf_counter() - train.throughput.elapsed

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._stages["test"].start()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: StepOutput,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the batch."""
        stage = self._stages["test"]
        self._count(trainer, pl_module, stage, batch, batch_idx)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._stages["predict"].start()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the batch."""
        stage = self._stages["predict"]
        self._count(trainer, pl_module, stage, batch, batch_idx)
