"""What takes the place of a damaged checkpoint, and that it is said."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_runs import Small, loader, quiet, variant

from lightgen_runtime import Trainer
from lightgen_runtime.callbacks import Callback, ModelCheckpoint, OnExceptionCheckpoint
from lightgen_runtime.demos.boring_classes import BoringModel
from lightgen_runtime.io import TorchCheckpointIO
from lightgen_runtime.utilities.exceptions import (
    CheckpointFormatError,
    CheckpointNotFoundError,
)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:700])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    # The bytes of the optimizer's or the module's numbers lie behind the pickle.
    position = content.index(b"data/0") + 80
    content[position] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES = pytest.mark.parametrize("damage", [truncate, flip, empty])


def keeping(folder: Path, epochs: int = 2, **flags: Any) -> Trainer:
    callback = ModelCheckpoint(folder, save_top_k=-1, save_last=True)
    return quiet(
        callbacks=[callback], enable_checkpointing=True, max_epochs=epochs, **flags
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    keeping(tmp_path / "c").fit(Small(), loader())
    return tmp_path / "c"


@DAMAGES
def test_last_gives_way_to_the_newest_valid_one(
    damage: Callable[[Path], None], folder: Path
) -> None:
    damage(folder / "last.ckpt")
    trainer = keeping(folder, epochs=3)
    with pytest.warns(UserWarning, match=r"last\.ckpt` is damaged") as told:
        trainer.fit(Small(), loader(), ckpt_path="last")
    newest = folder / "epoch=1-step=8.ckpt"
    assert f"`{newest}` is taken in its place" in str(told[0].message)
    assert trainer.ckpt_path == str(newest)
    assert trainer.global_step == 12


class Forbidding(TorchCheckpointIO):
    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> Any:
        if Path(path).name == "last.ckpt":
            raise PermissionError(13, "Permission denied", str(path))
        return super().load_checkpoint(path, *args, **kwargs)


def test_file_that_may_not_be_read_is_not_called_damaged(folder: Path) -> None:
    trainer = keeping(folder, epochs=3, plugins=Forbidding())
    with pytest.warns(UserWarning, match=r"last\.ckpt` cannot be read.*Permission"):
        trainer.fit(Small(), loader(), ckpt_path="last")
    assert trainer.global_step == 12


def test_two_damaged_files_give_way_to_the_third(folder: Path) -> None:
    truncate(folder / "last.ckpt")
    flip(folder / "epoch=1-step=8.ckpt")
    trainer = keeping(folder)
    with pytest.warns(UserWarning, match=r"step=4\.ckpt` is taken in its place"):
        trainer.fit(Small(), loader(), ckpt_path="last")
    assert trainer.global_step == 8


def test_nothing_valid_is_an_error(folder: Path) -> None:
    for path in folder.glob("*.ckpt"):
        truncate(path)
    with pytest.raises(CheckpointFormatError, match=r"last\.ckpt.*Name another"):
        keeping(folder).fit(Small(), loader(), ckpt_path="last")


def test_weights_alone_do_for_an_evaluation(folder: Path) -> None:
    trainer = keeping(folder, epochs=3)
    trainer.fit(Small(), loader())
    trainer.save_checkpoint(folder / "weights.ckpt", weights_only=True)
    truncate(folder / "last.ckpt")
    truncate(folder / "last-v1.ckpt")
    with pytest.warns(UserWarning, match=r"weights\.ckpt` is taken"):
        keeping(folder).test(Small(), loader(), ckpt_path="last", verbose=False)
    with pytest.warns(UserWarning, match=r"step=12\.ckpt` is taken"):
        keeping(folder).fit(Small(), loader(), ckpt_path="last")


@DAMAGES
def test_path_stays_an_error_that_names_the_newest_valid_one(
    damage: Callable[[Path], None], folder: Path
) -> None:
    path = folder / "last.ckpt"
    damage(path)
    expected = rf"last\.ckpt.*newest valid one beside it is `{folder}.*step=8\.ckpt`"
    with pytest.raises(CheckpointFormatError, match=expected):
        keeping(folder).fit(Small(), loader(), ckpt_path=path)
    with pytest.raises(CheckpointFormatError, match=expected):
        Small.load_from_checkpoint(path)


def test_best_is_never_replaced_by_another(folder: Path) -> None:
    trainer = keeping(folder)
    trainer.fit(Small(), loader())
    truncate(Path(trainer.checkpoint_callback.best_model_path))  # type: ignore
    with pytest.raises(CheckpointFormatError, match="newest valid one beside it"):
        trainer.test(ckpt_path="best", dataloaders=loader())


def test_what_the_end_of_a_job_left_gives_way_too(folder: Path, tmp_path: Path) -> None:
    trainer = quiet(default_root_dir=tmp_path)
    trainer.fit(Small(), loader())
    for number in (1, 2):
        trainer.save_checkpoint(tmp_path / f"hpc_ckpt_{number}.ckpt")
    truncate(tmp_path / "hpc_ckpt_2.ckpt")
    resumed = quiet(default_root_dir=tmp_path, max_epochs=2)
    with pytest.warns(UserWarning, match=r"hpc_ckpt_1\.ckpt` is taken"):
        resumed.fit(Small(), loader(), ckpt_path="hpc")
    assert resumed.global_step == 8


@pytest.mark.filterwarnings("ignore:.*holds the state of callbacks")
def test_what_an_exception_left_gives_way_too(folder: Path) -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        raise ZeroDivisionError

    def guarded() -> Trainer:
        callbacks = [OnExceptionCheckpoint(folder)]
        return quiet(callbacks=callbacks, enable_checkpointing=True, max_epochs=3)

    with pytest.raises(ZeroDivisionError):
        guarded().fit(variant(training_step=training_step), loader())
    truncate(folder / "on_exception.ckpt")
    trainer = guarded()
    with pytest.warns(UserWarning, match=r"goes on from|is taken in its place") as told:
        trainer.fit(Small(), loader())
    assert any("is taken in its place" in str(warning.message) for warning in told)
    assert trainer.global_step == 12


def test_missing_path_is_no_matter_of_damage(folder: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match=r"No checkpoint at.*none\.ckpt"):
        keeping(folder).fit(Small(), loader(), ckpt_path=folder / "none.ckpt")


def test_last_of_a_copied_folder_is_that_of_the_last_step(tmp_path: Path) -> None:
    """Copying gives files any order of time; another fit's newer file is the newest."""

    class SaveEarly(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            if trainer.global_step == 1:
                trainer.save_checkpoint(tmp_path / "last-early.ckpt")

    def fit(steps: int, **arguments: Any) -> Trainer:
        trainer = Trainer(
            accelerator="cpu",
            max_steps=steps,
            limit_val_batches=0,
            callbacks=[ModelCheckpoint(tmp_path, save_last=True), SaveEarly()],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(BoringModel(), **arguments)
        return trainer

    fit(4)
    os.utime(tmp_path / "last-early.ckpt", (2e9, 2e9))
    assert fit(5, ckpt_path="last").ckpt_path == str(tmp_path / "last.ckpt")
    fit(2)
    os.utime(tmp_path / "last-v1.ckpt", (3e9, 3e9))
    assert fit(6, ckpt_path="last").ckpt_path == str(tmp_path / "last-v1.ckpt")
