"""What a datamodule offers, in both packages."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from recording import OURS, REFERENCE, data, quiet_trainer, small_module
from torch.utils.data import IterableDataset, SequentialSampler, TensorDataset

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.parametrize("namespace", [OURS, REFERENCE]),
]


def base_of(namespace: str) -> Any:
    return importlib.import_module(namespace).LightningDataModule


def dataset(rows: int) -> Any:
    return TensorDataset(torch.ones(rows, 4))


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(torch.ones(3, 4))


# ---- made of datasets ----


def test_datasets_become_loaders(namespace: str) -> None:
    made = base_of(namespace).from_datasets(
        dataset(8), [dataset(3), dataset(5)], predict_dataset=dataset(2), batch_size=2
    )
    train, val = made.train_dataloader(), made.val_dataloader()
    assert isinstance(train.sampler, torch.utils.data.RandomSampler)
    assert (train.batch_size, train.num_workers, len(train)) == (2, 0, 4)
    assert [len(loader) for loader in val] == [2, 3]
    assert isinstance(val[0].sampler, SequentialSampler)
    assert len(made.predict_dataloader()) == 1
    with pytest.raises(Exception, match="test_dataloader"):
        made.test_dataloader()


def test_dataset_without_length_is_not_shuffled(namespace: str) -> None:
    loader = base_of(namespace).from_datasets(Stream(), batch_size=2).train_dataloader()
    assert [len(batch) for batch in loader] == [2, 1]


def test_datasets_by_name_become_loaders_by_name(namespace: str) -> None:
    named = {"a": dataset(4), "b": dataset(6)}
    made = base_of(namespace).from_datasets(named, batch_size=2)
    assert {k: len(v) for k, v in made.train_dataloader().items()} == {"a": 2, "b": 3}


@pytest.mark.parametrize("takes", ["batch_size", "everything", "nothing"])
def test_init_gets_what_it_takes(namespace: str, takes: str) -> None:
    base = base_of(namespace)

    class OfSize(base):  # type: ignore[misc,valid-type]
        def __init__(self, batch_size: int, other: str = "") -> None:
            super().__init__()
            self.seen = {"batch_size": batch_size, "other": other}

    class OfAnything(base):  # type: ignore[misc,valid-type]
        def __init__(self, **kwargs: Any) -> None:
            super().__init__()
            self.seen = kwargs

    class OfNothing(base):  # type: ignore[misc,valid-type]
        def __init__(self, other: str) -> None:
            super().__init__()
            self.seen = {"other": other}

    chosen = {"batch_size": OfSize, "everything": OfAnything, "nothing": OfNothing}
    made = chosen[takes].from_datasets(dataset(4), batch_size=2, other="x")
    expected = {
        "batch_size": {"batch_size": 2, "other": "x"},
        "everything": {"batch_size": 2, "num_workers": 0, "other": "x"},
        "nothing": {"other": "x"},
    }
    assert made.seen == expected[takes]


def test_module_trains_on_datasets(namespace: str) -> None:
    class Module(small_module(namespace)):  # type: ignore[misc]
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return super().training_step(batch[0], batch_idx)

        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("rows", float(len(batch[0])), batch_size=1, reduce_fx="sum")

    made = base_of(namespace).from_datasets(dataset(8), dataset(5), batch_size=2)
    module = Module()
    trainer = quiet_trainer(namespace, max_epochs=1)
    trainer.fit(module, made)
    assert trainer.global_step == 4
    assert float(trainer.callback_metrics["rows"]) == 5.0
    assert trainer.datamodule is made
    assert module.trainer.datamodule is made
    assert made.trainer is trainer


# ---- shown ----


def test_sizes_are_shown(namespace: str) -> None:
    made = base_of(namespace).from_datasets(
        dataset(8), [dataset(3), dataset(5)], Stream()
    )
    assert str(made).splitlines() == [
        "{Train dataloader: size=8}",
        "{Validation dataloader: 1. size=3 ; 2. size=5}",
        "{Test dataloader: size=NA}",
        "{Predict dataloader: None}",
    ]


def test_data_not_set_up_is_shown_as_none(namespace: str) -> None:
    class Late(base_of(namespace)):  # type: ignore[misc]
        def setup(self, stage: str) -> None:
            self.data = dataset(3)

        def train_dataloader(self) -> Any:
            return torch.utils.data.DataLoader(self.data)

    made = Late()
    assert str(made).splitlines()[0] == "{Train dataloader: None}"
    made.setup("fit")
    assert str(made).splitlines()[0] == "{Train dataloader: size=3}"


def test_attributes_and_their_defaults(namespace: str) -> None:
    made = base_of(namespace)("anything", goes=1)
    shown = {
        "name": made.name,
        "trainer": made.trainer,
        "per_node": made.prepare_data_per_node,
        "zero": made.allow_zero_length_dataloader_with_multiple_devices,
        "hparams": dict(made.hparams),
        "state": made.state_dict(),
    }
    assert shown == {
        "name": None,
        "trainer": None,
        "per_node": True,
        "zero": False,
        "hparams": {},
        "state": {},
    }


# ---- kept in checkpoints ----


def counting(namespace: str) -> Any:
    class Counting(base_of(namespace)):  # type: ignore[misc]
        def __init__(self, rows: int = 8, label: str = "a") -> None:
            super().__init__()
            self.save_hyperparameters()
            self.seen = 0

        def train_dataloader(self) -> Any:
            self.seen += 1
            return data(self.hparams.rows)

        def state_dict(self) -> Any:
            return {"seen": self.seen}

        def load_state_dict(self, state: Any) -> None:
            self.seen = state["seen"]

    return Counting


def test_state_and_arguments_survive_a_checkpoint(
    namespace: str, tmp_path: Path
) -> None:
    cls, path = counting(namespace), tmp_path / "a.ckpt"
    made = cls(4, label="b")
    trainer = quiet_trainer(namespace, max_epochs=1)
    trainer.fit(small_module(namespace)(), datamodule=made)
    trainer.save_checkpoint(path)
    keys = torch.load(path, weights_only=True)
    assert keys[cls.__qualname__] == {"seen": 1}
    assert dict(keys["datamodule_hyper_parameters"]) == {"rows": 4, "label": "b"}
    again = cls.load_from_checkpoint(path, rows=6)
    assert (again.seen, dict(again.hparams)) == (1, {"rows": 6, "label": "b"})
    resumed = cls()
    further = quiet_trainer(namespace, max_epochs=2)
    further.fit(small_module(namespace)(), datamodule=resumed, ckpt_path=path)
    assert resumed.seen == 2


def test_loading_is_refused_on_an_instance(namespace: str) -> None:
    for instance in (counting(namespace)(), small_module(namespace)()):
        with pytest.raises(Exception, match="instance"):
            instance.load_from_checkpoint("never.ckpt")


def test_inherited_hyperparameters_can_be_taken_out(namespace: str) -> None:
    class Derived(counting(namespace)):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(4, "b")
            self.remove_ignored_hparams(["label", "never"])

    assert dict(Derived().hparams) == {"rows": 4}


def test_datamodule_is_told_of_an_exception(namespace: str) -> None:
    seen: list[Any] = []

    class Told(base_of(namespace)):  # type: ignore[misc]
        def train_dataloader(self) -> Any:
            return data()

        def on_exception(self, exception: BaseException) -> None:
            seen.append(type(exception))

    class Failing(small_module(namespace)):  # type: ignore[misc]
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        quiet_trainer(namespace, max_epochs=1).fit(Failing(), datamodule=Told())
    assert seen == [ZeroDivisionError]
