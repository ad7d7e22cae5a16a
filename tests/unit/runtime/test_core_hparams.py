"""Hyperparameters: every form of capture, and the way through a checkpoint and back."""

from __future__ import annotations

import copy
import enum
import pickle
from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import Small, fitted, loader, quiet

from lightgen_runtime import LightningDataModule
from lightgen_runtime.loggers import CSVLogger
from lightgen_runtime.utilities.exceptions import MisconfigurationException


class Everything(Small):
    def __init__(self, lr: float = 0.1, *args: Any, width: int = 3, **kwargs: Any):
        super().__init__()
        self.save_hyperparameters()


class Some(Small):
    def __init__(self, lr: float = 0.1, width: int = 3, depth: int = 2) -> None:
        super().__init__()
        self.save_hyperparameters("lr", "depth")


class Ignoring(Small):
    def __init__(self, lr: float = 0.1, net: Any = None, loss: Any = None) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["net", "loss"])


class IgnoringOne(Small):
    def __init__(self, lr: float = 0.1, net: Any = None) -> None:
        super().__init__()
        self.save_hyperparameters(ignore="net")


class Base(Small):
    def __init__(self, lr: float = 0.1, width: int = 3) -> None:
        super().__init__()
        self.save_hyperparameters()


class Derived(Base):
    def __init__(self, depth: int = 5, width: int = 7) -> None:
        super().__init__(lr=0.5, width=width + 1)


class DerivedTwice(Base):
    def __init__(self, depth: int = 5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.save_hyperparameters(ignore="lr")


class InHelper(Small):
    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        self._remember()

    def _remember(self) -> None:
        self.save_hyperparameters()


class Changed(Small):
    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        lr = lr * 2
        self.save_hyperparameters()


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (lambda: Everything(), {"lr": 0.1, "width": 3}),
        (
            lambda: Everything(1, 2, 3, width=4, more=5),
            {"lr": 1, "width": 4, "more": 5},
        ),
        (lambda: Some(), {"lr": 0.1, "depth": 2}),
        (lambda: Ignoring(net=1), {"lr": 0.1}),
        (lambda: IgnoringOne(net=1), {"lr": 0.1}),
        (lambda: Derived(), {"lr": 0.5, "width": 7, "depth": 5}),
        (lambda: DerivedTwice(width=1), {"width": 1, "depth": 5}),
        (lambda: InHelper(0.3), {"lr": 0.3}),
        (lambda: Changed(0.3), {"lr": 0.6}),
        (lambda: Small(), {}),
    ],
)
def test_arguments_of_init_are_captured(made: Any, expected: Any) -> None:
    assert dict(made().hparams) == expected


def test_name_that_is_no_argument_is_an_error() -> None:
    class Mistyped(Small):
        def __init__(self, learning_rate: float = 0.1) -> None:
            super().__init__()
            self.save_hyperparameters("learning_rat")

    with pytest.raises(MisconfigurationException, match="mean 'learning_rate'"):
        Mistyped()


@dataclass
class Config:
    lr: float = 0.1
    widths: list[int] = field(default_factory=lambda: [1, 2])


class FromConfig(Small):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.save_hyperparameters(config)
        self.rate = config["lr"] if isinstance(config, dict) else config.lr


CONFIGS = {
    "dict": {"lr": 0.1, "widths": [1, 2]},
    "namespace": Namespace(lr=0.1, widths=[1, 2]),
    "dataclass": Config(),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_one_object_may_be_the_whole_set(kind: str, tmp_path: Path) -> None:
    model = FromConfig(CONFIGS[kind])
    assert dict(model.hparams) == {"lr": 0.1, "widths": [1, 2]}
    fitted(model).save_checkpoint(tmp_path / "x.ckpt")
    loaded = FromConfig.load_from_checkpoint(tmp_path / "x.ckpt")
    assert loaded.rate == 0.1
    assert loaded.hparams == model.hparams
    changed = FromConfig.load_from_checkpoint(tmp_path / "x.ckpt", lr=0.7)
    assert changed.rate == 0.7


@pytest.mark.parametrize("config", [5, 0.1, [1], Config, None])
def test_object_without_names_is_refused(config: Any) -> None:
    with pytest.raises(TypeError, match="a mapping, a `Namespace` or a dataclass"):
        FromConfig(config)


def test_hyperparameters_are_attributes_and_entries() -> None:
    hparams = Everything().hparams
    hparams.lr = 0.9
    assert hparams["lr"] == 0.9
    with pytest.raises(
        AttributeError, match=r"no hyperparameter 'widht'.*mean 'width'"
    ):
        _ = hparams.widht


def test_initial_values_stay_as_they_were() -> None:
    model = FromConfig({"lr": 0.1, "widths": [1, 2]})
    model.hparams.lr = 0.9
    model.hparams.widths.append(3)
    assert dict(model.hparams_initial) == {"lr": 0.1, "widths": [1, 2]}


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_module_is_copied_without_its_run(copied: Any) -> None:
    model = Everything(lr=0.7)
    trainer = fitted(model)
    twin = copied(model)
    assert twin.hparams == model.hparams
    assert torch.equal(twin.layer.weight, model.layer.weight)
    with pytest.raises(RuntimeError, match="not attached"):
        _ = twin.trainer
    assert model.trainer is trainer
    assert fitted(twin).global_step == 4


# ---- through a checkpoint ----


class Colour(enum.Enum):
    RED = "red"


class Holding(Small):
    def __init__(self, value: Any = None) -> None:
        super().__init__()
        self.save_hyperparameters()


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (Path("a") / "b", str(Path("a") / "b")),
        (Colour.RED, "red"),
        (np.float64(0.5), 0.5),
        (np.int32(3), 3),
        ((1, 2), (1, 2)),
        ({"a": [Path("x")]}, {"a": ["x"]}),
        (Config(), {"lr": 0.1, "widths": [1, 2]}),
        (Namespace(a=1), {"a": 1}),
        (torch.float16, torch.float16),
        (None, None),
    ],
)
def test_values_are_stored_as_plain_data(
    value: Any, stored: Any, tmp_path: Path
) -> None:
    fitted(Holding(value)).save_checkpoint(tmp_path / "x.ckpt")
    content = torch.load(tmp_path / "x.ckpt", weights_only=True)
    assert content["hyper_parameters"] == {"value": stored}
    assert Holding.load_from_checkpoint(tmp_path / "x.ckpt").hparams.value == stored


@pytest.mark.parametrize("value", [Config(lr=0.3), Namespace(lr=0.3, inner=Config())])
def test_reloaded_configuration_is_read_by_attribute(
    value: Any, tmp_path: Path
) -> None:
    fitted(Holding(value)).save_checkpoint(tmp_path / "x.ckpt")
    loaded = Holding.load_from_checkpoint(tmp_path / "x.ckpt").hparams.value
    assert loaded.lr == 0.3
    if isinstance(value, Namespace):
        assert loaded.inner.widths == [1, 2]


def test_module_as_a_value_is_left_out_with_a_warning(tmp_path: Path) -> None:
    trainer = fitted(Holding(torch.nn.Linear(1, 1)))
    with pytest.warns(UserWarning, match=r"`value` \(Linear\).*ignore=\['value'\]"):
        trainer.save_checkpoint(tmp_path / "x.ckpt")
    assert torch.load(tmp_path / "x.ckpt")["hyper_parameters"] == {}


def test_any_value_may_be_logged(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="", version="v")
    model = FromConfig({"lr": 0.1, "path": Path("x"), "f": Small, "t": torch.ones(2)})
    quiet(logger=logger).fit(model, loader())
    assert "lr: 0.1" in (tmp_path / "v" / "hparams.yaml").read_text()


# ---- datamodules ----


class Data(LightningDataModule):
    def __init__(self, batch_size: int = 2, lr: float = 1.0) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.seen = 0

    def train_dataloader(self) -> Any:
        return loader(batch_size=self.hparams.batch_size)

    def state_dict(self) -> dict[str, Any]:
        return {"seen": 5}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seen = state_dict["seen"]


def test_datamodule_is_rebuilt_from_a_checkpoint(tmp_path: Path) -> None:
    trainer = quiet()
    trainer.fit(Small(), Data(batch_size=4))
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    data = Data.load_from_checkpoint(tmp_path / "x.ckpt", lr=3.0)
    assert (data.hparams.batch_size, data.hparams.lr, data.seen) == (4, 3.0, 5)


def test_contradicting_hyperparameters_are_refused() -> None:
    with pytest.raises(MisconfigurationException, match=r"'lr'.*0.1 and 1.0.*Rename"):
        quiet().fit(Everything(lr=0.1), Data())
    quiet().fit(Everything(lr=1.0), Data())
