"""Reporting how much memory and processor time a run takes."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from lightgen_runtime.accelerators.accelerator import get_cpu_stats
from lightgen_runtime.callbacks.callback import Callback
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.imports import import_extra

if TYPE_CHECKING:
    from lightgen_runtime.callbacks.callback import StepOutput
    from lightgen_runtime.core.module import LightningModule
    from lightgen_runtime.trainer.trainer import Trainer


class DeviceStatsMonitor(Callback):
    """Send the device's statistics to the loggers, before and after batches due to log.

    On CUDA these are torch's memory statistics; on the CPU its load and the memory in
    use, read by psutil.

    Args:
        cpu_stats: Report the CPU: True beside another device too, False never. None
            reports it where it is the device.

    Raises:
        MisconfigurationException: The trainer has no logger.
        MissingDependencyError: psutil is needed and not installed.

    Cost: two calls a batch; where it is due, a reading by the operating system or driver.
    """

    def __init__(self, cpu_stats: bool | None = None) -> None:
        self._cpu_stats = cpu_stats
        self._reports_cpu = False
        self._every: float = inf  # optimizer steps between two reports

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what cannot work."""
        if not trainer.loggers:
            raise MisconfigurationException(
                "`DeviceStatsMonitor` with `Trainer(logger=False)` has nowhere to report "
                "to: add a logger or remove the callback"
            )
        on_cpu = trainer.strategy.root_device.type == "cpu"
        wanted = on_cpu if self._cpu_stats is None else self._cpu_stats
        if wanted:
            import_extra(
                "psutil",
                install="pip install psutil",
                used_by="`DeviceStatsMonitor` on the CPU",
            )
        self._reports_cpu = wanted
        if trainer.log_every_n_steps and (wanted or not on_cpu):
            self._every = trainer.log_every_n_steps

    def _report(self, trainer: Trainer, hook: str) -> None:
        device = trainer.strategy.root_device
        stats = {}
        if device.type != "cpu":
            stats.update(trainer.accelerator.get_device_stats(device))
        if self._reports_cpu:
            stats.update(get_cpu_stats())
        for logger in trainer.loggers if trainer.is_global_zero else ():
            prefix = f"{type(self).__name__}.{hook}{logger.group_separator}"
            named = {f"{prefix}{name}": value for name, value in stats.items()}
            logger.log_metrics(named, step=trainer.progress.batches_that_stepped)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Report, if due."""
        if (trainer.progress.batches_that_stepped + 1) % self._every == 0:
            self._report(trainer, "on_train_batch_start")

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: StepOutput,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Report, if due."""
        if (trainer.progress.batches_that_stepped + 1) % self._every == 0:
            self._report(trainer, "on_train_batch_end")

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Report, if due."""
        if (batch_idx + 1) % self._every == 0:
            self._report(trainer, "on_validation_batch_start")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: StepOutput,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Report, if due."""
        if (batch_idx + 1) % self._every == 0:
            self._report(trainer, "on_validation_batch_end")

    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Report, if due."""
        if (batch_idx + 1) % self._every == 0:
            self._report(trainer, "on_test_batch_start")

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: StepOutput,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Report, if due."""
        if (batch_idx + 1) % self._every == 0:
            self._report(trainer, "on_test_batch_end")
