"""What a checkpoint holds, key by key, and what may be stored in one."""

from __future__ import annotations

import subprocess
import sys
from collections import UserDict, UserList, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from uuid import UUID

import attrs
import numpy as np
import pydantic
import pytest
import torch
from small_runs import Small, fitted, loader, quiet, variant
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR

from lightgen_runtime.callbacks import EarlyStopping, ModelCheckpoint
from lightgen_runtime.io.schema import plain
from lightgen_runtime.utilities.exceptions import MisconfigurationException


class Saved(Small):
    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()

    def configure_optimizers(self) -> Any:
        optimizer = SGD(self.parameters(), lr=self.hparams.lr, momentum=0.9)
        return [optimizer], [StepLR(optimizer, 1)]


def shape_of(value: Any, depth: int) -> Any:
    """Return keys and types of nested mappings, down to a depth."""
    if isinstance(value, dict) and depth:
        return {key: shape_of(entry, depth - 1) for key, entry in value.items()}
    return type(value).__name__


def test_keys_and_types_are_as_recorded(tmp_path: Path) -> None:
    trainer = fitted(Saved(), callbacks=EarlyStopping("val_loss"))
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    content = torch.load(tmp_path / "x.ckpt", weights_only=True)
    progress = content["loops"].pop("fit_loop")
    assert shape_of(content, 2) == {
        "epoch": "int",
        "global_step": "int",
        "pytorch-lightning_version": "str",
        "state_dict": {"layer.weight": "Tensor", "layer.bias": "Tensor"},
        "loops": {
            "validate_loop": "dict",
            "test_loop": "dict",
            "predict_loop": "dict",
        },
        "hyper_parameters": {"lr": "float"},
        "hparams_name": "str",
        "callbacks": {"EarlyStopping{'monitor': 'val_loss', 'mode': 'min'}": "dict"},
        "optimizer_states": "list",
        "lr_schedulers": "list",
        "lightgen": {
            "format": "int",
            "progress": "dict",
            "rng": "dict",
            "epoch_rng": "dict",
            "gradients": "list",
            "train_metrics": "list",
            "callback_metrics": "dict",
            "loader": "dict",
            "loggers": "list",
            "share": "dict",
            "record": "dict",
            "optimizers": "list",
            "schedulers": "list",
        },
    }
    assert set(progress) == {
        "state_dict",
        "epoch_loop.state_dict",
        "epoch_loop.batch_progress",
        "epoch_loop.scheduler_progress",
        "epoch_loop.automatic_optimization.state_dict",
        "epoch_loop.automatic_optimization.optim_progress",
        "epoch_loop.manual_optimization.state_dict",
        "epoch_loop.manual_optimization.optim_step_progress",
        "epoch_loop.val_loop.state_dict",
        "epoch_loop.val_loop.batch_progress",
        "epoch_progress",
    }


def test_weights_only_leaves_the_rest_out(tmp_path: Path) -> None:
    fitted(Saved()).save_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    content = torch.load(tmp_path / "x.ckpt", weights_only=True)
    assert set(content) == {
        "epoch",
        "global_step",
        "pytorch-lightning_version",
        "state_dict",
        "loops",
        "hyper_parameters",
        "hparams_name",
        "lightgen",
    }
    assert content["lightgen"].keys() == {"format", "record"}


def test_counters_tell_epochs_and_optimizer_steps(tmp_path: Path) -> None:
    trainer = fitted(Saved(), max_epochs=3, accumulate_grad_batches=2)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    content = torch.load(tmp_path / "x.ckpt", weights_only=True)
    assert (content["epoch"], content["global_step"]) == (3, 6)


def test_file_is_read_without_this_package(tmp_path: Path) -> None:
    fitted(Saved()).save_checkpoint(tmp_path / "x.ckpt")
    script = (
        "import sys, torch; torch.load(sys.argv[1], weights_only=True); "
        "assert not any(name.startswith('lightgen') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "x.ckpt")], check=True)


def test_save_that_fails_keeps_the_old_file(tmp_path: Path) -> None:
    model = Saved()
    trainer = fitted(model)
    file = tmp_path / "x.ckpt"
    trainer.save_checkpoint(file)
    before = file.read_bytes()
    model.on_save_checkpoint = lambda checkpoint: checkpoint.update(  # type: ignore
        bad=object()
    )
    with pytest.raises(MisconfigurationException, match="a object at `bad`"):
        trainer.save_checkpoint(file)
    assert file.read_bytes() == before
    assert {entry.name for entry in tmp_path.iterdir()} == {"x.ckpt", "manifest.json"}


def test_saving_does_not_disturb_the_fit(tmp_path: Path) -> None:
    def train(callbacks: list[Any]) -> torch.Tensor:
        model = Saved()
        torch.manual_seed(1)
        trainer = quiet(max_epochs=2, callbacks=callbacks, enable_checkpointing=None)
        trainer.fit(model, loader(shuffle=True), loader(4))
        return model.layer.weight.detach()

    silent = train([ModelCheckpoint(tmp_path / "a", save_top_k=0)])
    saving = train([ModelCheckpoint(tmp_path / "b", every_n_train_steps=1)])
    assert torch.equal(silent, saving)


# ---- plain data ----


class Size(IntEnum):
    BIG = 3


class Kind(Enum):
    PATH = Path("x")


class ListConfig(Sequence[int]):
    """As OmegaConf's: a list in all but its type."""

    def __init__(self, entries: list[int]) -> None:
        self.entries = entries

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: Any) -> Any:
        return self.entries[index]


ListConfig.__module__ = "omegaconf.listconfig"


class Pair(NamedTuple):
    a: int
    b: Path


class Settings(pydantic.BaseModel):
    lr: float
    at: Path


@attrs.define
class Made:
    at: Path


@dataclass
class Point:
    x: int
    where: Path


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (Size.BIG, 3),
        (Kind.PATH, "x"),
        (Point(1, Path("y")), {"x": 1, "where": "y"}),
        (timedelta(minutes=2), 120.0),
        (frozenset({1}), {1}),
        ((1, [Path("z")]), (1, ["z"])),
        (np.bool_(True), True),
        ({Path("k"): np.float32(0.5)}, {"k": 0.5}),
        (float("inf"), float("inf")),
        (b"bytes", b"bytes"),
        (torch.Size([2]), torch.Size([2])),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (deque([1, Path("q")], maxlen=3), [1, "q"]),
        (range(1, 7, 2), [1, 3, 5]),
        (SimpleNamespace(a=Path("n")), {"a": "n"}),
        (np.dtype("float32"), "float32"),
        (np.datetime64("2026-01-02T03:04:05"), "2026-01-02T03:04:05"),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array([Path("a"), 1], dtype=object), ["a", 1]),
        (datetime(2026, 1, 2, 3), "2026-01-02T03:00:00"),
        (date(2026, 1, 2), "2026-01-02"),
        (time(3, 4), "03:04:00"),
        (Decimal("0.10"), "0.10"),
        (Fraction(1, 3), "1/3"),
        (UUID(int=1), str(UUID(int=1))),
        (bytearray(b"b"), b"b"),
        (UserDict(a=1), {"a": 1}),
        (UserList([1]), [1]),
        (ListConfig([1, 2]), [1, 2]),
        (Pair(1, Path("p")), (1, "p")),
        (Settings(lr=0.1, at=Path("s")), {"lr": 0.1, "at": "s"}),
        (Made(Path("m")), {"at": "m"}),
    ],
)
def test_value_becomes_plain_data(value: Any, stored: Any, tmp_path: Path) -> None:
    made = plain(value, "here")
    assert made == stored
    assert type(made) is type(stored)
    torch.save(made, tmp_path / "x")
    assert torch.load(tmp_path / "x", weights_only=True) == stored


def test_array_of_the_other_byte_order_keeps_its_values() -> None:
    made = plain(np.arange(3, dtype=">i4"), "here")
    assert made.tolist() == [0, 1, 2]


def test_array_becomes_a_tensor_of_its_own() -> None:
    array = np.arange(3.0)
    made = plain(array, "here")
    array[0] = 9
    assert torch.equal(made, torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64))


@pytest.mark.parametrize(
    "value",
    [
        *(object(), len, Small, torch.nn.Linear(1, 1), int, partial(int, 1), lambda: 1),
        *(slice(1), range(10**9), torch.Generator(), {frozenset({1}): 1}, iter([])),
        np.array([object()]),
    ],
)
def test_value_that_is_no_data_is_refused_with_its_place(value: Any) -> None:
    with pytest.raises(MisconfigurationException, match=r"at `here\.a\[1\]"):
        plain({"a": [1, value]}, "here")


def test_extra_state_of_a_user_is_stored_and_given_back(tmp_path: Path) -> None:
    seen = []

    def on_save_checkpoint(self: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["mine"] = {"path": Path("x"), "n": np.int64(3)}

    def on_load_checkpoint(self: Any, checkpoint: dict[str, Any]) -> None:
        seen.append(checkpoint["mine"])

    members = {
        "on_save_checkpoint": on_save_checkpoint,
        "on_load_checkpoint": on_load_checkpoint,
    }
    fitted(variant(**members)).save_checkpoint(tmp_path / "x.ckpt")
    quiet().test(
        variant(**members), loader(), ckpt_path=tmp_path / "x.ckpt", verbose=False
    )
    assert seen == [{"path": "x", "n": 3}]
