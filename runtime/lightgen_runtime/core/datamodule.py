"""Data of one project in one place."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from typing_extensions import Self

from lightgen_runtime.core.data_hooks import DataHooks
from lightgen_runtime.core.hparams import HyperparametersMixin
from lightgen_runtime.core.loading import load_from_checkpoint

if TYPE_CHECKING:
    from lightgen_runtime.trainer.trainer import Trainer


class LightningDataModule(DataHooks, HyperparametersMixin):
    """Prepares data and makes the loaders of every stage.

    Subclass it with the hooks of `DataHooks`, and pass it to any method of `Trainer`.

    Example:
        >>> import torch
        >>> from torch.utils.data import DataLoader
        >>> class Numbers(LightningDataModule):
        ...     def train_dataloader(self):
        ...         return DataLoader(torch.arange(8.0), batch_size=4)
        >>> len(Numbers().train_dataloader())
        2
    """

    # Read by tools that look datamodules up by name.
    name: str | None = None
    CHECKPOINT_HYPER_PARAMS_KEY = "datamodule_hyper_parameters"
    CHECKPOINT_HYPER_PARAMS_NAME = "datamodule_hparams_name"

    def __init__(self) -> None:
        super().__init__()
        self.trainer: Trainer | None = None
        self.prepare_data_per_node = True
        self.allow_zero_length_dataloader_with_multiple_devices = False

    def on_exception(self, exception: BaseException) -> None:
        """Release what `setup` built, after `exception` ended the run."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of this datamodule; empty keeps nothing."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` returned when the checkpoint was written."""

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: str | os.PathLike[str],
        map_location: Any = None,
        hparams_file: str | os.PathLike[str] | None = None,
        weights_only: bool | None = None,
        **kwargs: Any,
    ) -> Self:
        """Rebuild the datamodule that a checkpoint was trained with.

        Args:
            checkpoint_path: The file.
            map_location: Where tensors in its state go, as in `torch.load`.
            hparams_file: YAML file whose values replace the checkpoint's.
            weights_only: Accepted for compatibility; loading never runs code.
            kwargs: Values that replace saved ones.

        Raises:
            CheckpointNotFoundError: No such file.
            CheckpointFormatError: The file is no readable checkpoint.
        """
        return load_from_checkpoint(
            cls, checkpoint_path, map_location, hparams_file, None, kwargs
        )
