"""A disk that fails while a fit saves: the fit goes on, and nothing that was saved is lost."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import Small, loader, quiet, variant

from lightgen_runtime import Callback, Trainer
from lightgen_runtime.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from lightgen_runtime.io import AsyncCheckpointIO, TorchCheckpointIO
from lightgen_runtime.io.store import newest_valid, read_manifest, verify
from lightgen_runtime.utilities.exceptions import CheckpointWriteError, SIGTERMException

SCORES = (3.0, 1.0, 2.0, 0.5)


class Failing(TorchCheckpointIO):
    """Refuse the saves of some steps, and some removals, with an error of the system."""

    def __init__(self, code: int, saves: tuple[int, ...], removals: int = 0) -> None:
        self.error = OSError(code, os.strerror(code))
        self.saves, self.removals = saves, removals

    def save_checkpoint(
        self, checkpoint: Any, path: Any, storage_options: Any = None
    ) -> None:
        if checkpoint["global_step"] in self.saves:
            raise self.error
        super().save_checkpoint(checkpoint, path)

    def remove_checkpoint(self, path: Any) -> None:
        if self.removals:
            self.removals -= 1
            raise self.error
        super().remove_checkpoint(path)


def fit(*callbacks: Callback, **flags: Any) -> Trainer:
    """Train for four epochs of four steps."""

    def validation_step(self: Any, batch: Any, batch_idx: int) -> None:
        self.log("score", SCORES[self.trainer.current_epoch])

    flags = {"max_epochs": 4, "num_sanity_val_steps": 0, **flags}
    trainer = quiet(callbacks=list(callbacks), enable_checkpointing=True, **flags)
    trainer.fit(variant(validation_step=validation_step), loader(), loader(2))
    return trainer


@contextmanager
def warned(text: str) -> Iterator[None]:
    """Expect warnings, and one of them to say `text`."""
    with pytest.warns(UserWarning, match=".") as told:
        yield
    assert any(text in str(warning.message) for warning in told)


def names(folder: Path) -> list[str]:
    found = sorted(path.name for path in folder.iterdir())
    assert found.pop() == "manifest.json"
    assert sorted(read_manifest(folder)) == found
    assert all(verify(folder / name) is None for name in found)
    return found


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("failing", [(4,), (8,), (16,), (4, 8, 12)])
def test_failed_saves_are_said_and_the_next_ones_count(
    code: int, failing: tuple[int, ...], tmp_path: Path
) -> None:
    callback = ModelCheckpoint(tmp_path, monitor="score", save_top_k=2, save_last=True)
    with pytest.warns(UserWarning, match=".") as told:
        fit(callback, plugins=Failing(code, failing))
    said = [str(warning.message) for warning in told]
    assert f"Step {failing[0]}: " in said[0]
    assert os.strerror(code) in said[0]
    assert "The fit goes on" in said[0]
    assert f"This fit could not save {2 * len(failing)} checkpoints" in said[-1]
    assert len(said) == 2 * len(failing) + 1
    scores = {4 * n + 4: s for n, s in enumerate(SCORES) if 4 * n + 4 not in failing}
    best = sorted(scores, key=scores.__getitem__)[:2]
    expected = {f"epoch={step // 4 - 1}-step={step}.ckpt" for step in best}
    assert names(tmp_path) == sorted({*expected, "last.ckpt"})
    assert {Path(path).name for path in callback.best_k_models} == expected
    assert float(str(callback.best_model_score.item())) == scores[best[0]]  # type: ignore
    last = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert last["global_step"] == max(scores)


def test_nothing_can_be_saved_at_all(tmp_path: Path) -> None:
    callback = ModelCheckpoint(tmp_path / "c", monitor="score", save_last=True)
    with warned("This fit could not save 9 checkpoints"):
        trainer = fit(callback, plugins=Failing(errno.ENOSPC, (4, 8, 12, 16)))
    assert trainer.global_step == 16
    assert callback.best_model_path == callback.last_model_path == ""
    assert callback.best_k_models == {}
    assert not (tmp_path / "c").exists()


class Vanishing(Callback):
    """Take the folder away in the second epoch, and give it back in the third."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            self.folder.rename(self.folder.with_name("away"))
            self.folder.write_text("a file where the folder was")
        if trainer.current_epoch == 2:
            self.folder.unlink()
            self.folder.with_name("away").rename(self.folder)


def test_folder_that_is_gone_for_a_while(tmp_path: Path) -> None:
    folder = tmp_path / "mount"
    callback = ModelCheckpoint(folder, monitor="score", save_top_k=3, save_last=True)
    with warned("File exists"):
        fit(Vanishing(folder), callback)
    assert names(folder) == [
        "epoch=0-step=4.ckpt",
        "epoch=2-step=12.ckpt",
        "epoch=3-step=16.ckpt",
        "last.ckpt",
    ]


@pytest.mark.skipif(os.name == "nt", reason="no limits on files there")
def test_writes_that_fail_in_the_middle(tmp_path: Path) -> None:
    import resource
    import signal

    class Full(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            limit = 500 if trainer.current_epoch == 1 else former[0]
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, former[1]))

    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    callback = ModelCheckpoint(tmp_path, save_last=True)
    try:
        with warned("File too large"):
            fit(Full(), callback, max_epochs=3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
        signal.signal(signal.SIGXFSZ, handler)
    assert names(tmp_path) == ["epoch=2-step=12.ckpt", "last.ckpt"]


def test_file_that_cannot_be_removed_goes_with_the_next(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="has lost its place but stays.*denied"):
        fit(ModelCheckpoint(tmp_path), plugins=Failing(errno.EACCES, (), removals=1))
    assert names(tmp_path) == ["epoch=3-step=16.ckpt"]


def test_users_own_save_still_fails(tmp_path: Path) -> None:
    trainer = quiet(plugins=Failing(errno.ENOSPC, (4,)))
    trainer.fit(Small(), loader())
    with pytest.raises(CheckpointWriteError, match=r"x\.ckpt.*No space left") as caught:
        trainer.save_checkpoint(tmp_path / "x.ckpt")
    assert caught.value.errno == errno.ENOSPC
    (tmp_path / "file").write_text("")
    trainer = quiet()
    trainer.fit(Small(), loader())
    with pytest.raises(OSError, match="cannot be written"):
        trainer.save_checkpoint(tmp_path / "file" / "x.ckpt")


def raising(**members: Any) -> Small:
    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.trainer.global_step == 2:
            raise ZeroDivisionError
        return self(batch).pow(2).mean()

    return variant(training_step=training_step, **members)


@pytest.mark.parametrize("kind", [OnExceptionCheckpoint, ModelCheckpoint])
def test_error_of_the_fit_is_the_one_that_is_raised(kind: Any, tmp_path: Path) -> None:
    flags = {"save_on_exception": True} if kind is ModelCheckpoint else {}
    callback = kind(tmp_path, **flags)
    trainer = quiet(
        callbacks=[callback],
        enable_checkpointing=True,
        plugins=Failing(errno.ENOSPC, (2,)),
    )
    with (
        warned("No space left"),
        pytest.raises(ZeroDivisionError),
    ):
        trainer.fit(raising(), loader())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [OnExceptionCheckpoint, ModelCheckpoint])
def test_fit_that_cannot_begin_replaces_nothing(kind: Any, tmp_path: Path) -> None:
    flags = {"save_on_exception": True} if kind is ModelCheckpoint else {}
    with pytest.raises(ZeroDivisionError):
        quiet(callbacks=[kind(tmp_path, **flags)], enable_checkpointing=True).fit(
            raising(), loader()
        )
    (path,) = tmp_path.glob("*.ckpt")
    before = path.read_bytes()

    def on_train_start(self: Any) -> None:
        raise AssertionError("not reached")

    def on_fit_start(self: Any) -> None:
        raise KeyError("the fit cannot begin")

    with pytest.raises(KeyError):
        quiet(callbacks=[kind(tmp_path, **flags)], enable_checkpointing=True).fit(
            variant(on_fit_start=on_fit_start, on_train_start=on_train_start),
            loader(),
            ckpt_path=path,
        )
    assert path.read_bytes() == before
    assert list(tmp_path.glob("*.ckpt")) == [path]


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_fit_its_own_way_though_the_disk_is_full(
    tmp_path: Path, number: int, beside: bool
) -> None:
    class Full(TorchCheckpointIO):
        def save_checkpoint(
            self, checkpoint: Any, path: Any, storage_options: Any = None
        ) -> None:
            if "interrupted" in str(path):
                raise OSError(28, "No space left on device")
            super().save_checkpoint(checkpoint, path)

    class Signalled(Callback):
        def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
            if trainer.global_step == 5:
                signal.raise_signal(number)

    trainer = quiet(
        plugins=AsyncCheckpointIO(Full()) if beside else Full(),
        callbacks=[Signalled(), ModelCheckpoint(tmp_path, save_last=True)],
        enable_checkpointing=True,
        max_epochs=3,
    )
    ending = KeyboardInterrupt if number == signal.SIGINT else SIGTERMException
    with (
        pytest.warns(UserWarning, match="since the last checkpoint is lost") as told,
        pytest.raises(ending),
    ):
        trainer.fit(Small(), loader())
    assert len(told) == 1
    assert "No space left" in str(told[0].message)
    assert trainer.interrupted_path is None
    names = sorted(path.name for path in tmp_path.glob("*.ckpt"))
    assert names == ["epoch=0-step=4.ckpt", "last.ckpt"]
    assert newest_valid(tmp_path) is not None
