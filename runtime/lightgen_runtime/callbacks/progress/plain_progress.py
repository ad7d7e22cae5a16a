"""Progress as lines that only ever grow: for files, pipes and continuous integration."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from lightgen_runtime.callbacks.progress.progress_bar import (
    ProgressBar,
    epoch_label,
    format_metrics,
)
from lightgen_runtime.utilities.rank_zero import print_to_stderr

if TYPE_CHECKING:
    from lightgen_runtime.core.module import LightningModule
    from lightgen_runtime.trainer.trainer import Trainer


class PlainProgressBar(ProgressBar):
    """Print one line an epoch, and one for each validation, test or prediction run."""

    def __init__(self) -> None:
        super().__init__()
        self._started = 0.0

    def _line(self, text: str) -> None:
        if self._is_enabled:
            print_to_stderr(text)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock for an epoch that is resumed, whose start nobody announces."""
        self._started = monotonic()

    def on_train_epoch_start(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> None:
        """Start the clock of the epoch."""
        self._started = monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the epoch's line."""
        seconds = monotonic() - self._started
        metrics = format_metrics(self.get_metrics(trainer, pl_module))
        self._line(f"{epoch_label(trainer)}  {seconds:.1f} s  {metrics}".rstrip())

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print a line for a validation in mid-epoch; others belong to the epoch's."""
        if trainer.state.fn != "fit":
            self._finished(self.validation_description)
        elif not trainer.sanity_checking and not trainer.is_last_batch:
            metrics = format_metrics(self.get_metrics(trainer, pl_module))
            self._line(
                f"{epoch_label(trainer)}  step {trainer.global_step}  {metrics}".rstrip()
            )

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of a validation run."""
        if trainer.state.fn != "fit":
            self._started = monotonic()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of a test run."""
        self._started = monotonic()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print that testing is done."""
        self._finished(self.test_description)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of a prediction run."""
        self._started = monotonic()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print that prediction is done."""
        self._finished(self.predict_description)

    def _finished(self, description: str) -> None:
        self._line(f"{description}  {monotonic() - self._started:.1f} s")
