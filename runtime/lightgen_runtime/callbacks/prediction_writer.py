"""Writing predictions to wherever they belong, while they are made or afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

from lightgen_runtime.callbacks.callback import Callback
from lightgen_runtime.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from lightgen_runtime.core.module import LightningModule
    from lightgen_runtime.trainer.trainer import Trainer


class WriteInterval(str, Enum):
    """When predictions are written."""

    BATCH = "batch"
    EPOCH = "epoch"
    BATCH_AND_EPOCH = "batch_and_epoch"

    @property
    def on_batch(self) -> bool:
        """Whether each batch is written."""
        return self is not WriteInterval.EPOCH

    @property
    def on_epoch(self) -> bool:
        """Whether everything is written at the end."""
        return self is not WriteInterval.BATCH


class BasePredictionWriter(Callback):
    """Override `write_on_batch_end` or `write_on_epoch_end`, or both.

    Args:
        write_interval: "batch", "epoch" or "batch_and_epoch": which of them are called.

    Raises:
        MisconfigurationException: `write_interval` is none of these.

    Example:
        >>> class ToFile(BasePredictionWriter):
        ...     def write_on_epoch_end(self, trainer, module, predictions, batch_indices):
        ...         torch.save(predictions, f"predictions_{trainer.global_rank}.pt")
    """

    def __init__(self, write_interval: str = "batch") -> None:
        accepted = [interval.value for interval in WriteInterval]
        if write_interval not in accepted:
            raise MisconfigurationException(
                f"`{type(self).__name__}(write_interval={write_interval!r})`: accepted are "
                f"{', '.join(map(repr, accepted))}"
            )
        self.interval = WriteInterval(write_interval)

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write the prediction of one batch.

        Args:
            trainer: The running trainer.
            pl_module: What predicts.
            prediction: What `predict_step` returned.
            batch_indices: The batch's sample numbers in its dataset; empty if the loader
                does not tell.
            batch: The batch, on its device.
            batch_idx: Position in the loader, from 0.
            dataloader_idx: Position of the loader, from 0.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define `write_on_batch_end`, or be given "
            'write_interval="epoch"'
        )

    def write_on_epoch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Write all predictions of this process.

        Args:
            trainer: The running trainer.
            pl_module: What predicts.
            predictions: By batch; with several loaders, a list of such lists.
            batch_indices: For each loader, the sample numbers of each batch.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define `write_on_epoch_end`, or be given "
            'write_interval="batch"'
        )

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Have the batch written, if that is asked for."""
        if self.interval.on_batch:
            self.write_on_batch_end(
                trainer,
                pl_module,
                outputs,
                trainer.predict_loop.current_batch_indices,
                batch,
                batch_idx,
                dataloader_idx,
            )

    def on_predict_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> None:
        """Have everything written, if that is asked for."""
        if self.interval.on_epoch:
            collected = trainer.predict_loop
            self.write_on_epoch_end(
                trainer,
                pl_module,
                collected.predictions,
                collected.epoch_batch_indices,
            )
