"""Checkpoints that a thread writes: complete, in order, with errors that are seen."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import Small, fitted, loader, quiet

from lightgen_runtime.callbacks import ModelCheckpoint
from lightgen_runtime.plugins.io import AsyncCheckpointIO, TorchCheckpointIO


class Gated(TorchCheckpointIO):
    """Writes when it is allowed to, and notes what it does."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.done: list[str] = []

    def save_checkpoint(
        self, checkpoint: Any, path: Any, storage_options: Any = None
    ) -> None:
        assert self.open.wait(60)
        super().save_checkpoint(checkpoint, path)
        self.done.append(f"saved {Path(path).name}")

    def remove_checkpoint(self, path: Any) -> None:
        super().remove_checkpoint(path)
        self.done.append(f"removed {Path(path).name}")


class Full(TorchCheckpointIO):
    """Has room for one checkpoint."""

    saved = 0

    def save_checkpoint(
        self, checkpoint: Any, path: Any, storage_options: Any = None
    ) -> None:
        self.saved += 1
        if self.saved > 1:
            raise OSError("no space left")
        super().save_checkpoint(checkpoint, path)


def checkpoint(value: float) -> dict[str, Any]:
    return {"state_dict": {"w": torch.tensor([value])}, "nested": [torch.zeros(1)]}


def test_what_is_written_is_what_was_saved(tmp_path: Path) -> None:
    gated = Gated()
    io = AsyncCheckpointIO(gated)
    saved = checkpoint(1.0)
    io.save_checkpoint(saved, tmp_path / "a.ckpt")
    saved["state_dict"]["w"].fill_(7.0)  # training goes on
    saved["nested"][0].fill_(7.0)
    assert not (tmp_path / "a.ckpt").exists()
    gated.open.set()
    loaded = io.load_checkpoint(tmp_path / "a.ckpt")
    assert loaded["state_dict"]["w"] == 1.0
    assert loaded["nested"][0] == 0.0
    io.teardown()


def test_file_goes_when_the_one_in_its_place_is_there(tmp_path: Path) -> None:
    gated = Gated()
    io = AsyncCheckpointIO(gated)
    torch.save(checkpoint(0.0), tmp_path / "old.ckpt")
    io.save_checkpoint(checkpoint(1.0), tmp_path / "new.ckpt")
    io.remove_checkpoint(tmp_path / "old.ckpt")
    assert (tmp_path / "old.ckpt").exists()
    gated.open.set()
    io.teardown()
    assert gated.done == ["saved new.ckpt", "removed old.ckpt"]


def test_nothing_is_removed_after_a_failed_write(tmp_path: Path) -> None:
    io = AsyncCheckpointIO(Full())
    io.save_checkpoint(checkpoint(0.0), tmp_path / "old.ckpt")
    io.save_checkpoint(checkpoint(1.0), tmp_path / "new.ckpt")

    def replace_old() -> None:
        io.remove_checkpoint(tmp_path / "old.ckpt")
        io.teardown()

    with pytest.raises(OSError, match="no space left"):
        replace_old()  # the thread may fail before the one or the other
    assert (tmp_path / "old.ckpt").exists()
    io.teardown()  # the error was told


def test_fit_ends_with_all_of_its_files(tmp_path: Path) -> None:
    def files(plugins: Any, folder: Path) -> dict[str, Any]:
        callback = ModelCheckpoint(
            folder, monitor="val_loss", save_top_k=2, save_last=True
        )
        fitted(
            Small(),
            plugins=plugins,
            max_epochs=4,
            callbacks=callback,
            enable_checkpointing=True,
        )
        return {
            path.name: torch.load(path, weights_only=True)["state_dict"]
            for path in folder.glob("*.ckpt")
        }

    ours = files(AsyncCheckpointIO(), tmp_path / "async")
    theirs = files(None, tmp_path / "sync")
    assert ours.keys() == theirs.keys()
    assert len(ours) == 3
    for name, weights in theirs.items():
        for key, tensor in weights.items():
            assert torch.equal(ours[name][key], tensor)


def test_failed_write_fails_the_fit(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no space left"):
        fitted(
            Small(),
            plugins=AsyncCheckpointIO(Full()),
            max_epochs=2,
            callbacks=ModelCheckpoint(tmp_path, save_top_k=-1),
            enable_checkpointing=True,
        )
    assert len(list(tmp_path.glob("*.ckpt"))) == 1


def test_trainer_goes_on_after_a_run(tmp_path: Path) -> None:
    trainer = quiet(plugins=AsyncCheckpointIO(), max_epochs=1)
    trainer.fit(Small(), loader())
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    assert (tmp_path / "x.ckpt").exists()
    trainer.validate(Small(), loader(4), ckpt_path=tmp_path / "x.ckpt", verbose=False)
    trainer.fit(Small(), loader())


def test_failed_write_outside_of_a_run_is_told(tmp_path: Path) -> None:
    trainer = quiet(plugins=AsyncCheckpointIO(Full()))
    trainer.fit(Small(), loader())
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    with pytest.raises(OSError, match="no space left"):
        trainer.save_checkpoint(tmp_path / "y.ckpt")
