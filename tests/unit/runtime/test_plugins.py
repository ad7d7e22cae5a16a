"""`Trainer(plugins=...)`: what it takes, what it refuses, checkpoints kept elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import Small, fitted, loader, quiet

from lightgen_runtime.callbacks import ModelCheckpoint
from lightgen_runtime.plugins import (
    CheckpointIO,
    DoublePrecision,
    HalfPrecision,
    MixedPrecision,
    Precision,
    TorchCheckpointIO,
)
from lightgen_runtime.strategies import SingleDeviceStrategy
from lightgen_runtime.utilities.exceptions import (
    CheckpointFormatError,
    MisconfigurationException,
)


class InMemory(CheckpointIO):
    """Keeps checkpoints in a dictionary, as a database or an object store would."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Any]] = {}
        self.options: list[Any] = []
        self.torn_down = 0

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        self.kept[str(path)] = checkpoint
        self.options.append(storage_options)

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return self.kept[str(path)]

    def remove_checkpoint(self, path: Any) -> None:
        del self.kept[str(path)]

    def teardown(self) -> None:
        self.torn_down += 1


class Stepping(Precision):
    """Written for Lightning, whose precisions step optimizers."""

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError


REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    (
        {"plugins": "16-mixed"},
        ["'1' (str)", "`Precision`, a `CheckpointIO` or a `Cluster"],
    ),
    ({"plugins": [5]}, ["5 (int)", "`Precision`, a `CheckpointIO` or a `Cluster"]),
    ({"plugins": DoublePrecision}, ["type", "`Precision`"]),
    (
        {"plugins": [DoublePrecision(), HalfPrecision()]},
        ["a DoublePrecision and a HalfPrecision", "one of them"],
    ),
    (
        {"plugins": [InMemory(), TorchCheckpointIO()]},
        ["a InMemory and a TorchCheckpointIO", "one of them"],
    ),
    (
        {"plugins": DoublePrecision(), "precision": "32-true"},
        ["precision='32-true'", "a DoublePrecision", "one of them"],
    ),
    (
        {
            "plugins": InMemory(),
            "strategy": SingleDeviceStrategy("cpu", checkpoint_io=InMemory()),
        },
        ["a strategy with a InMemory", "one of them"],
    ),
    ({"plugins": Stepping()}, ["Stepping", "`optimizer_step`", "plugins.Precision"]),
]


@pytest.mark.parametrize(("flags", "parts"), REFUSED, ids=lambda v: str(v)[:40])
def test_contradiction_is_refused_at_construction(
    flags: dict[str, Any], parts: list[str]
) -> None:
    with pytest.raises(MisconfigurationException) as caught:
        quiet(**flags)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.filterwarnings("ignore")
def test_plugin_of_lightning_is_recognised() -> None:
    from lightning.pytorch.plugins import MixedPrecision as Theirs

    with pytest.raises(MisconfigurationException, match="change its import"):
        quiet(plugins=Theirs("bf16-mixed", "cpu"))


def test_one_plugin_or_several_are_taken() -> None:
    store, half = InMemory(), HalfPrecision("bf16-true")
    trainer = quiet(plugins=(half, store))
    assert trainer.precision_plugin is half
    assert trainer.strategy.checkpoint_io is store
    assert quiet(plugins=[]).precision == "32-true"
    assert quiet(plugins=MixedPrecision("bf16-mixed", "cpu")).precision == "bf16-mixed"


def test_strategy_gets_the_plugin_in_place_of_its_default() -> None:
    store = InMemory()
    strategy = SingleDeviceStrategy("cpu")
    assert quiet(strategy=strategy, plugins=store).strategy.checkpoint_io is store


def test_checkpoints_live_where_the_plugin_keeps_them(tmp_path: Path) -> None:
    store = InMemory()
    callback = ModelCheckpoint(tmp_path, monitor="val_loss", save_top_k=1)
    module = Small()
    trainer = fitted(
        module,
        plugins=store,
        max_epochs=3,
        callbacks=callback,
        enable_checkpointing=True,
    )
    assert list(store.kept) == [callback.best_model_path]
    assert list(tmp_path.iterdir()) == []
    again = ModelCheckpoint(tmp_path, monitor="val_loss", save_top_k=1)
    flags = {"callbacks": again, "enable_checkpointing": True}
    other = quiet(plugins=store, max_epochs=4, **flags)
    other.fit(Small(), loader(), loader(4), ckpt_path=callback.best_model_path)
    assert other.global_step == 16
    results = trainer.validate(module, loader(4), ckpt_path="best", verbose=False)
    assert results[0]["val_loss"] == pytest.approx(float(callback.best_model_score))  # type: ignore[arg-type]
    assert store.torn_down == 3  # once a run


def test_storage_options_reach_the_plugin() -> None:
    store = InMemory()
    trainer = fitted(Small(), plugins=store)
    trainer.save_checkpoint("anywhere", storage_options={"region": "x"})
    trainer.save_checkpoint("elsewhere")
    assert store.options == [{"region": "x"}, None]


def test_storage_options_without_a_plugin_are_refused(tmp_path: Path) -> None:
    trainer = fitted(Small())
    with pytest.raises(MisconfigurationException, match=r"storage_options=\{'a': 1\}"):
        trainer.save_checkpoint(tmp_path / "x.ckpt", storage_options={"a": 1})
    assert not (tmp_path / "x.ckpt").exists()


def test_what_a_plugin_loads_must_be_a_checkpoint() -> None:
    store = InMemory()
    store.kept["x"] = {"weights": torch.ones(1)}
    with pytest.raises(CheckpointFormatError, match=r"`x` has no `state_dict`, only"):
        quiet(plugins=store).fit(Small(), loader(), ckpt_path="x")


def test_error_of_a_plugin_reaches_the_caller() -> None:
    class Broken(InMemory):
        def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
            raise LookupError("no such bucket")

    with pytest.raises(LookupError, match="no such bucket"):
        fitted(
            Small(),
            plugins=Broken(),
            enable_checkpointing=True,
            callbacks=ModelCheckpoint(),
        )
