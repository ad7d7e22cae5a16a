"""Learning rates, losses and batch sizes that the tuner tries, in both packages."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from recording import data, quiet_trainer, small_module

pytestmark = pytest.mark.filterwarnings("ignore")
BOTH = ["lightning.pytorch", "lightgen_runtime"]


def found_lr(namespace: str, flags: dict[str, Any], **arguments: Any) -> Any:
    class Tunable(small_module(namespace)):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.lr = 0.1

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.Adam(self.parameters(), lr=self.lr)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

    torch.manual_seed(3)
    module, trainer = Tunable(), quiet_trainer(namespace, **{"max_epochs": 30, **flags})
    tuner = importlib.import_module(f"{namespace}.tuner").Tuner(trainer)
    found = tuner.lr_find(module, data(8, shuffle=True), data(4), **arguments)
    return {
        "results": found.results,
        "suggestion": found.suggestion(),
        "attribute": module.lr,
        "weights": module.layer.weight.tolist(),
        "next random number": torch.rand(1).item(),
        "steps": trainer.global_step,
        "callbacks": len(trainer.callbacks),
    }


@pytest.mark.parametrize(
    ("flags", "arguments", "tried"),
    [
        ({}, {}, 100),
        ({}, {"mode": "linear", "num_training": 30, "max_lr": 0.1}, 30),
        ({"accumulate_grad_batches": 2}, {"num_training": 30}, 30),
        ({"max_epochs": 3}, {}, 12),
        ({}, {"max_lr": 100.0}, 86),
        ({}, {"max_lr": 100.0, "early_stop_threshold": None}, 100),
        ({}, {"update_attr": False}, 100),
    ],
)
def test_range_test_tries_the_same_and_leaves_the_same(
    flags: dict[str, Any],
    arguments: dict[str, Any],
    tried: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    theirs, ours = (found_lr(namespace, flags, **arguments) for namespace in BOTH)
    assert len(ours["results"]["lr"]) == tried
    assert ours == theirs
    assert list(tmp_path.iterdir()) == []


def sizes(
    namespace: str, capacity: int, rows: int, method: str, arguments: dict[str, Any]
) -> tuple[Any, int, list[int]]:
    """Scale with a memory that holds `capacity` samples; return result and tries."""
    tried: list[int] = []

    def step(name: str) -> Any:
        def method(self: Any, batch: Any, batch_idx: int) -> Any:
            if not tried or tried[-1] != len(batch):
                tried.append(len(batch))
            if len(batch) > capacity:
                raise RuntimeError("CUDA error: out of memory")
            return getattr(super(Scaling, self), name)(batch, batch_idx)

        return method

    class Scaling(small_module(namespace)):  # type: ignore[misc]
        training_step = step("training_step")
        test_step = step("test_step")
        predict_step = step("predict_step")

        def __init__(self) -> None:
            super().__init__()
            self.batch_size = 2

        def train_dataloader(self) -> Any:
            return data(rows, self.batch_size)

        def val_dataloader(self) -> Any:
            return data(4, 1)

        test_dataloader = predict_dataloader = train_dataloader

    module, trainer = Scaling(), quiet_trainer(namespace, max_epochs=1)
    tuner = importlib.import_module(f"{namespace}.tuner").Tuner(trainer)
    result = tuner.scale_batch_size(module, method=method, **arguments)
    return result, module.batch_size, tried


@pytest.mark.parametrize(
    ("capacity", "arguments", "expected"),
    [
        (50, {}, 32),
        (1000, {}, 512),
        (1000, {"max_trials": 3}, 8),
        (1, {}, 1),
        (50, {"mode": "binsearch"}, 47),
        (50, {"mode": "binsearch", "margin": 0.0}, 50),
        (1000, {"mode": "binsearch", "max_trials": 3}, 7),
        (50, {"init_val": 16, "steps_per_trial": 1}, 32),
    ],
)
def test_scaling_stops_at_the_same_size(
    capacity: int,
    arguments: dict[str, Any],
    expected: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for namespace in BOTH:
        found = sizes(namespace, capacity, 512, "fit", arguments)
        assert found[:2] == (expected, expected)


@pytest.mark.parametrize("method", ["test", "predict"])
def test_scaling_other_stages_stops_at_the_same_size(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    theirs, ours = (sizes(namespace, 50, 512, method, {}) for namespace in BOTH)
    assert ours == theirs
    assert ours[0] == 32
