"""What every progress bar has in common: totals, names, metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lightgen_runtime.callbacks.callback import Callback
from lightgen_runtime.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from lightgen_runtime.core.module import LightningModule
    from lightgen_runtime.trainer.trainer import Trainer


class ProgressBar(Callback):
    """Show the progress of a run; subclass it for another display."""

    def __init__(self) -> None:
        self._trainer: Trainer | None = None
        self._eval_dataloader_idx: int | None = None
        self._is_enabled = True

    @property
    def trainer(self) -> Trainer:
        """The running trainer.

        Raises:
            MisconfigurationException: The bar is not part of a run yet.
        """
        if self._trainer is None:
            raise MisconfigurationException(
                f"`{type(self).__name__}` has no trainer yet. Pass it to "
                "`Trainer(callbacks=[...])` and use it from `setup` on."
            )
        return self._trainer

    @property
    def is_enabled(self) -> bool:
        """Whether anything is shown."""
        return self._is_enabled

    @property
    def is_disabled(self) -> bool:
        """Whether nothing is shown."""
        return not self._is_enabled

    def enable(self) -> None:
        """Show progress from now on."""
        self._is_enabled = True

    def disable(self) -> None:
        """Show nothing from now on."""
        self._is_enabled = False

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print without disturbing the bar; arguments are those of `print`."""
        print(*args, **kwargs)  # noqa: T201 - the user asked for it

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Show progress on rank zero only."""
        self._trainer = trainer
        self._eval_dataloader_idx = None
        if not trainer.is_global_zero:
            self.disable()

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return what to show beside the bar; override it to add or hide items.

        Cost: reads the metrics' values, so it synchronises host and device.
        """
        return {**get_standard_metrics(trainer), **trainer.progress_bar_metrics}

    # Names and totals.

    @property
    def sanity_check_description(self) -> str:
        """Name of the sanity check."""
        return "Sanity check"

    @property
    def train_description(self) -> str:
        """Name of training."""
        return "Training"

    @property
    def validation_description(self) -> str:
        """Name of validation."""
        return "Validation"

    @property
    def test_description(self) -> str:
        """Name of testing."""
        return "Testing"

    @property
    def predict_description(self) -> str:
        """Name of prediction."""
        return "Predicting"

    @property
    def total_train_batches(self) -> int | float:
        """Training batches of one epoch; infinite when unknown."""
        return self.trainer.num_training_batches

    @property
    def total_val_batches(self) -> int | float:
        """Validation batches of this epoch over all loaders; 0 if it has none."""
        every = self.trainer.check_val_every_n_epoch
        if every is not None and (self.trainer.current_epoch + 1) % every != 0:
            return 0
        return sum(self.trainer.num_val_batches)

    @property
    def total_val_batches_current_dataloader(self) -> int | float:
        """Batches of the validation loader that runs now."""
        batches = (
            self.trainer.num_sanity_val_batches
            if self.trainer.sanity_checking
            else self.trainer.num_val_batches
        )
        return batches[self._eval_dataloader_idx or 0]

    @property
    def total_test_batches_current_dataloader(self) -> int | float:
        """Batches of the test loader that runs now."""
        return self.trainer.num_test_batches[self._eval_dataloader_idx or 0]

    @property
    def total_predict_batches_current_dataloader(self) -> int | float:
        """Batches of the prediction loader that runs now."""
        return self.trainer.num_predict_batches[self._eval_dataloader_idx or 0]

    def has_dataloader_changed(self, dataloader_idx: int) -> bool:
        """Tell whether `dataloader_idx` differs from the last call, and remember it."""
        former, self._eval_dataloader_idx = self._eval_dataloader_idx, dataloader_idx
        return former != dataloader_idx

    def reset_dataloader_idx_tracker(self) -> None:
        """Forget which loader ran last."""
        self._eval_dataloader_idx = None


def get_standard_metrics(trainer: Trainer) -> dict[str, int | str]:
    """Return the version of the run as `v_num`, if it has one: the end of a long name."""
    versions = [logger.version for logger in trainer.loggers]
    version: Any = "_".join(dict.fromkeys(map(str, versions)))
    if len(versions) == 1:
        version = versions[0]
    if version is None or version == "":
        return {}
    return {"v_num": version[-4:] if isinstance(version, str) else version}


def epoch_label(trainer: Trainer) -> str:
    """Name the current epoch, counted from 1, with the last one where it is known."""
    number = f"Epoch {trainer.current_epoch + 1}"
    if trainer.max_epochs is None or trainer.max_epochs < 0:
        return number
    return f"{number}/{trainer.max_epochs}"


def format_metrics(
    metrics: Mapping[str, object], number: str = ".4g", delimiter: str = "  "
) -> str:
    """Write metrics on one line.

    Args:
        metrics: Their values by name.
        number: How a number with a fraction is written.
        delimiter: Between two metrics.
    """
    return delimiter.join(
        f"{name} {value:{number}}" if isinstance(value, float) else f"{name} {value}"
        for name, value in metrics.items()
    )
