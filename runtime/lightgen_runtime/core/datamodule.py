"""Data of one project in one place."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sized
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, IterableDataset
from typing_extensions import Self

from lightgen_runtime.core.data_hooks import DataHooks
from lightgen_runtime.core.hparams import HyperparametersMixin
from lightgen_runtime.core.loading import class_only, load_from_checkpoint

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
    # On the class too, for a subclass that does not call `super().__init__()`.
    trainer: Trainer | None = None
    CHECKPOINT_HYPER_PARAMS_KEY = "datamodule_hyper_parameters"
    CHECKPOINT_HYPER_PARAMS_NAME = "datamodule_hparams_name"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.trainer = None

    @classmethod
    def from_datasets(
        cls,
        train_dataset: Any = None,
        val_dataset: Any = None,
        test_dataset: Any = None,
        predict_dataset: Any = None,
        batch_size: int = 1,
        num_workers: int = 0,
        **datamodule_kwargs: Any,
    ) -> Self:
        """Make a datamodule of datasets: the training ones shuffled, the others not.

        Args:
            train_dataset: A dataset, or a list or dictionary of several.
            val_dataset: Likewise.
            test_dataset: Likewise.
            predict_dataset: Likewise.
            batch_size: Samples in a batch. Passed to `__init__` too, if it takes it.
            num_workers: Worker processes of each loader; 0 for none. Passed to `__init__`
                too, if it takes it.
            datamodule_kwargs: For `__init__`.
        """
        shared = {"batch_size": batch_size, "num_workers": num_workers}
        parameters = inspect.signature(cls.__init__).parameters
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        taken = {k: v for k, v in shared.items() if takes_any or k in parameters}
        datamodule = cls(**datamodule_kwargs, **taken)
        given = {
            "train_dataloader": train_dataset,
            "val_dataloader": val_dataset,
            "test_dataloader": test_dataset,
            "predict_dataloader": predict_dataset,
        }
        for hook, datasets in given.items():
            if datasets is not None:
                shuffle = hook == "train_dataloader"
                loaders = partial(_loaders_of, datasets, shuffle=shuffle, **shared)
                setattr(datamodule, hook, loaders)
        return datamodule

    def __str__(self) -> str:
        """Return the sizes of the datasets that are set up, a line for each stage."""
        return os.linesep.join(
            f"{{{stage} dataloader: {_sizes_of(getattr(self, hook))}}}"
            for stage, hook in (
                ("Train", "train_dataloader"),
                ("Validation", "val_dataloader"),
                ("Test", "test_dataloader"),
                ("Predict", "predict_dataloader"),
            )
        )

    def on_exception(self, exception: BaseException) -> None:
        """Release what `setup` built, after `exception` ended the run."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of this datamodule; empty keeps nothing."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` returned when the checkpoint was written."""

    @class_only
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


def _loaders_of(datasets: Any, batch_size: int, num_workers: int, shuffle: bool) -> Any:
    """Return a loader for each dataset, in the collection that holds them."""

    def loader(dataset: Any) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            batch_size=batch_size,
            shuffle=shuffle and not isinstance(dataset, IterableDataset),
            num_workers=num_workers,
            pin_memory=torch.cuda.is_available(),
        )

    if isinstance(datasets, Mapping):
        return {name: loader(dataset) for name, dataset in datasets.items()}
    if isinstance(datasets, (list, tuple)):
        return [loader(dataset) for dataset in datasets]
    return loader(datasets)


def _sizes_of(hook: Callable[[], Any]) -> str:
    """Return the sizes of the datasets of one stage, or None before they are set up."""
    try:
        loaders = hook()
    except Exception:  # the user's own code, before `setup`: anything can be missing
        return "None"
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    if not isinstance(loaders, (list, tuple)):
        return f"size={_size_of(loaders)}"
    return " ; ".join(
        f"{number}. size={_size_of(loader)}"
        for number, loader in enumerate(loaders, start=1)
    )


def _size_of(loader: Any) -> str:
    dataset = getattr(loader, "dataset", loader)
    return str(len(dataset)) if isinstance(dataset, Sized) else "NA"
