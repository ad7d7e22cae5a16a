"""Slips that the reference passes over, or meets later, on both packages."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from recording import OURS, REFERENCE, data, module_with, quiet_trainer
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lightgen_runtime.utilities.exceptions import (
    EmptyDataError,
    MisconfigurationException,
)


class Nothing(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(())


def warnings_of(namespace: str, module: Any, loader: Any = None) -> str:
    """Fit, and return all warnings as one text."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = quiet_trainer(namespace, max_epochs=1)
        trainer.fit(module, data() if loader is None else loader, data(4))
    return "\n".join(str(warning.message) for warning in caught)


@pytest.mark.parametrize("name", ["on_train_epoch_ends", "on_epoch_end"])
def test_method_that_is_no_hook(name: str) -> None:
    def run(namespace: str) -> str:
        module = module_with(namespace, **{name: lambda self: None})
        return warnings_of(namespace, module)

    assert name not in run(REFERENCE)
    assert f"`Module.{name}`" in run(OURS)
    assert "`on_train_epoch_end`" in run(OURS)


@pytest.mark.filterwarnings("ignore")
def test_epoch_end_hook_of_version_1() -> None:
    def run(namespace: str) -> None:
        module = module_with(namespace, training_epoch_end=lambda self, outputs: None)
        quiet_trainer(namespace, max_epochs=1).fit(module, data())

    with pytest.raises(NotImplementedError, match="on_train_epoch_end"):
        run(REFERENCE)
    with pytest.raises(MisconfigurationException, match="on_train_epoch_end"):
        run(OURS)


@pytest.mark.filterwarnings("ignore")
def test_hook_with_wrong_arguments() -> None:
    def steps_before_the_error(namespace: str, error: type[Exception]) -> Any:
        module = module_with(namespace, on_train_epoch_end=lambda self, outputs: None)
        trainer = quiet_trainer(namespace, max_epochs=1)
        with pytest.raises(error, match="outputs"):
            trainer.fit(module, data())
        return trainer.global_step

    assert steps_before_the_error(REFERENCE, TypeError) > 0
    assert steps_before_the_error(OURS, MisconfigurationException) == 0


@pytest.mark.filterwarnings("ignore")
def test_stream_without_a_batch() -> None:
    def run(namespace: str) -> Any:
        trainer = quiet_trainer(namespace, max_epochs=1)
        trainer.fit(module_with(namespace), DataLoader(Nothing()))
        return trainer

    assert run(REFERENCE).global_step == 0
    with pytest.raises(EmptyDataError, match="yielded no batch"):
        run(OURS)


def test_dataset_in_place_of_its_loader() -> None:
    def run(namespace: str) -> str:
        def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
            return self.layer(batch[0]).mean()

        module = module_with(namespace, training_step=training_step)
        return warnings_of(namespace, module, TensorDataset(data().dataset))  # type: ignore[arg-type]

    assert "is taken for a batch" not in run(REFERENCE)
    assert "is taken for a batch" in run(OURS)


@pytest.mark.filterwarnings("ignore")
def test_datamodule_given_twice() -> None:
    def run(namespace: str) -> Any:
        package = importlib.import_module(namespace)
        kind = type(
            "Data",
            (package.LightningDataModule,),
            {"train_dataloader": lambda self: data()},
        )
        trainer = quiet_trainer(namespace, max_epochs=1)
        trainer.fit(module_with(namespace), kind(), datamodule=kind())
        return trainer

    assert run(REFERENCE).global_step > 0
    with pytest.raises(MisconfigurationException, match="in the place of a loader"):
        run(OURS)
