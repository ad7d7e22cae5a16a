"""Hooks about data, which a module and a datamodule share."""

from __future__ import annotations

from typing import Any

import torch

from lightgen_runtime.core.hooks import is_overridden
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.move_data import move_data_to_device


class DataHooks:
    """Loaders, their preparation, and the way of a batch to its device.

    Attributes:
        prepare_data_per_node: Whether `prepare_data` runs once on each machine, or once.
        allow_zero_length_dataloader_with_multiple_devices: Accepted for compatibility;
            nothing reads it.
    """

    prepare_data_per_node = True
    allow_zero_length_dataloader_with_multiple_devices = False

    def prepare_data(self) -> None:
        """Download or convert data; runs in one process, before `setup`.

        Assigning attributes here reaches that process only; do it in `setup`.
        """

    def setup(self, stage: str) -> None:
        """Build what `stage` needs, in every process.

        Args:
            stage: "fit", "validate", "test" or "predict".
        """

    def teardown(self, stage: str) -> None:
        """Release what `setup` built.

        Args:
            stage: As in `setup`.
        """

    def train_dataloader(self) -> Any:
        """Return the iterable of training batches."""
        raise _missing(self, "train_dataloader", "fit")

    def val_dataloader(self) -> Any:
        """Return the iterable of validation batches, or a list of several."""
        raise _missing(self, "val_dataloader", "validate")

    def test_dataloader(self) -> Any:
        """Return the iterable of test batches, or a list of several."""
        raise _missing(self, "test_dataloader", "test")

    def predict_dataloader(self) -> Any:
        """Return the iterable of batches to predict, or a list of several."""
        raise _missing(self, "predict_dataloader", "predict")

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Change a batch before it goes to the device, and return it."""
        return batch

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Return the batch on `device`; override it for a container of your own."""
        return move_data_to_device(batch, device)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Change a batch on the device, and return it."""
        return batch


def data_owner(
    hook: str, datamodule: DataHooks | None, module: DataHooks
) -> DataHooks | None:
    """Return whose version of a hook counts: the datamodule's first, None if neither's."""
    for candidate in (datamodule, module):
        if candidate is not None and is_overridden(hook, candidate, DataHooks):
            return candidate
    return None


def _missing(owner: object, hook: str, method: str) -> MisconfigurationException:
    return MisconfigurationException(
        f"`trainer.{method}()` needs data: {type(owner).__name__} has no `{hook}`. Define "
        f"it, or pass loaders or a datamodule to `trainer.{method}()`."
    )
