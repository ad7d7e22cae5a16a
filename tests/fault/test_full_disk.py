"""A disk that fills up while a checkpoint is being written, at several places of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_disk import files_no_larger_than

from lightgen_runtime.callbacks import ModelCheckpoint
from lightgen_runtime.demos.boring_classes import BoringModel
from lightgen_runtime.io import (
    AsyncCheckpointIO,
    DistributedCheckpointIO,
    TorchCheckpointIO,
)
from lightgen_runtime.trainer.trainer import Trainer

LIMITS = [500, 100_000, 500_000, 900_000]
IOS = {
    "file": TorchCheckpointIO,
    "folder": DistributedCheckpointIO,
    "file beside": lambda: AsyncCheckpointIO(TorchCheckpointIO()),
    "folder beside": lambda: AsyncCheckpointIO(DistributedCheckpointIO()),
}


def checkpoint(value: float) -> dict[str, Any]:
    weights = {f"w{n}": torch.full((50_000,), value) for n in range(5)}
    return {"global_step": 1, "state_dict": weights, "optimizer_states": []}


def save_and_wait(io: Any, path: Path) -> None:
    io.save_checkpoint(checkpoint(2.0), path)
    io.teardown()


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("name", IOS)
def test_what_the_system_refused_is_raised(
    name: str, limit: int, tmp_path: Path
) -> None:
    path = tmp_path / "x.ckpt"
    io = IOS[name]()
    io.save_checkpoint(checkpoint(1.0), path)
    io.teardown()
    with files_no_larger_than(limit), pytest.raises(OSError, match="too large"):
        save_and_wait(io, path)
    assert (io.load_checkpoint(path)["state_dict"]["w4"] == 1).all()
    io.save_checkpoint(checkpoint(3.0), path)
    io.teardown()
    assert (io.load_checkpoint(path)["state_dict"]["w4"] == 3).all()


class Large(BoringModel):
    def __init__(self) -> None:
        super().__init__()
        self.filling = torch.nn.ParameterList(torch.ones(50_000) for _ in range(5))


@pytest.mark.parametrize("limit", LIMITS)
def test_fit_goes_on_where_a_file_breaks_off(limit: int, tmp_path: Path) -> None:
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        limit_train_batches=2,
        limit_val_batches=0,
        callbacks=ModelCheckpoint(tmp_path),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with (
        pytest.warns(UserWarning, match="cannot be written|could not save"),
        files_no_larger_than(limit),
    ):
        trainer.fit(Large())
    assert trainer.current_epoch == 2
    assert not list(tmp_path.glob("*.ckpt"))
