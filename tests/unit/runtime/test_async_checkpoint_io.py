"""Checkpoints that a thread writes: complete, in order, with errors that are seen."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import Small, fitted, loader, quiet

from lightgen_runtime.callbacks import Callback, ModelCheckpoint
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
    """Has room for one checkpoint, or for all but the second."""

    saved = 0
    error: Exception = OSError("no space left")
    made_room = False

    def save_checkpoint(
        self, checkpoint: Any, path: Any, storage_options: Any = None
    ) -> None:
        self.saved += 1
        if self.saved == 2 or (self.saved > 2 and not self.made_room):
            raise self.error
        super().save_checkpoint(checkpoint, path)


class Broken(Full):
    error = RuntimeError("wires crossed")


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


def test_nothing_is_removed_though_the_failure_was_told_before(tmp_path: Path) -> None:
    class Waiting(Full):
        def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
            if self.saved == 1:
                assert asked_for.wait(60)
            super().save_checkpoint(*args, **kwargs)

    asked_for = threading.Event()
    io = AsyncCheckpointIO(Waiting())
    io.on_failure = lambda tell: tell()  # before the thread goes on
    io.save_checkpoint(checkpoint(0.0), tmp_path / "old.ckpt")
    io.save_checkpoint(checkpoint(1.0), tmp_path / "new.ckpt")
    io.remove_checkpoint(tmp_path / "old.ckpt")

    def load_when_failed() -> None:
        asked_for.set()
        io.load_checkpoint(tmp_path / "old.ckpt")

    with pytest.warns(UserWarning, match="no space left"):
        load_when_failed()
    io.remove_checkpoint(tmp_path / "old.ckpt")  # asked for after that, and on its own
    io.teardown()
    assert not (tmp_path / "old.ckpt").exists()


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


def fit_saving_each_epoch(io: AsyncCheckpointIO, folder: Path, **options: Any) -> Any:
    return fitted(
        Small(),
        plugins=io,
        max_epochs=4,
        callbacks=ModelCheckpoint(folder, **options),
        enable_checkpointing=True,
    )


def test_full_disk_is_a_warning_and_the_fit_goes_on(tmp_path: Path) -> None:
    with pytest.warns(
        UserWarning, match="cannot be written: no space|could not save"
    ) as told:
        trainer = fit_saving_each_epoch(AsyncCheckpointIO(Full()), tmp_path)
    assert [f"epoch={n}" in str(told[n - 1].message) for n in (1, 2, 3)] == [True] * 3
    assert "This fit could not save 3 checkpoints" in str(told[3].message)
    assert trainer.current_epoch == 4
    assert [path.name for path in tmp_path.glob("*.ckpt")] == ["epoch=0-step=4.ckpt"]
    callback = trainer.checkpoint_callback
    assert callback.best_model_path == str(tmp_path / "epoch=0-step=4.ckpt")


def test_disk_that_has_room_again_is_written_to(tmp_path: Path) -> None:
    full = Full()
    full.made_room = True
    with pytest.warns(UserWarning, match="no space|could not save"):
        fit_saving_each_epoch(AsyncCheckpointIO(full), tmp_path)
    # The first stayed for want of the second, until the third took its place.
    names = [path.name for path in tmp_path.glob("*.ckpt")]
    assert names == ["epoch=3-step=16.ckpt"]


class Refusing(TorchCheckpointIO):
    """Has no room for files of some epochs."""

    def __init__(self, *epochs: int) -> None:
        self.epochs = epochs

    def save_checkpoint(
        self, checkpoint: Any, path: Any, storage_options: Any = None
    ) -> None:
        if checkpoint["epoch"] in self.epochs:
            raise OSError(28, "no space left")
        super().save_checkpoint(checkpoint, path)


@pytest.mark.parametrize("epochs", [(0,), (1,), (3,), (1, 2), (2, 3), (0, 1, 2)])
@pytest.mark.parametrize("save_last", [True, "link"])
@pytest.mark.parametrize("beside", [True, False])
def test_failed_write_counts_as_if_it_had_not_been_beside(
    tmp_path: Path, epochs: Any, save_last: Any, beside: bool
) -> None:
    io = Refusing(*epochs)
    callback = ModelCheckpoint(
        tmp_path, monitor="step", mode="max", save_top_k=2, save_last=save_last
    )
    with pytest.warns(UserWarning, match="no space left|could not save") as told:
        fitted(
            Small(),
            plugins=AsyncCheckpointIO(io) if beside else io,
            max_epochs=4,
            callbacks=callback,
            enable_checkpointing=True,
        )
    good = [n for n in range(4) if n not in epochs]
    paths = [str(tmp_path / f"epoch={n}-step={4 * n + 4}.ckpt") for n in good]
    last = str(tmp_path / "last.ckpt") if good else ""
    assert sorted(callback.best_k_models) == paths[-2:]
    assert callback.best_model_path == (paths[-1] if paths else "")
    assert callback.last_model_path == last
    there = sorted(str(path) for path in tmp_path.iterdir() if path.suffix == ".ckpt")
    assert there == [*paths[-2:], *([last] if last else [])]
    if last:
        assert torch.load(last, weights_only=True)["epoch"] == good[-1]
    assert "This fit could not save" in str(told[-1].message)
    if save_last is True:
        assert len(told) == 2 * len(epochs) + 1
        assert str(told[-1].message).startswith(
            f"This fit could not save {2 * len(epochs)} checkpoints"
        )


def test_two_callbacks_do_not_take_the_same_name(tmp_path: Path) -> None:
    class Slow(TorchCheckpointIO):
        def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
            time.sleep(0.05)
            super().save_checkpoint(*args, **kwargs)

    callbacks: list[Callback] = [
        ModelCheckpoint(tmp_path, monitor="val_loss", save_last="link"),
        ModelCheckpoint(tmp_path, every_n_epochs=1, save_last="link"),
    ]
    fitted(
        Small(),
        plugins=AsyncCheckpointIO(Slow()),
        callbacks=callbacks,
        enable_checkpointing=True,
    )
    names = ["epoch=0-step=4-v1.ckpt", "epoch=0-step=4.ckpt"]
    links = ["last-v1.ckpt", "last.ckpt"]
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == [*names, *links]
    targets = [(tmp_path / link).resolve().name for link in links]
    assert targets == names


def test_link_never_dangles(tmp_path: Path) -> None:
    class Looking(TorchCheckpointIO):
        def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
            time.sleep(0.05)
            seen.append([path.exists() for path in tmp_path.glob("last*")])
            super().save_checkpoint(*args, **kwargs)

    seen: list[list[bool]] = []
    fit_saving_each_epoch(AsyncCheckpointIO(Looking()), tmp_path, save_last="link")
    assert seen == [[], [True], [True], [True]]


def test_write_that_fails_for_another_reason_fails_the_fit(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="wires crossed"):
        fit_saving_each_epoch(AsyncCheckpointIO(Broken()), tmp_path, save_top_k=-1)
    assert len(list(tmp_path.glob("*.ckpt"))) == 1


class Saving(Callback):
    """Saves behind batch 1; lets the writing end, or fail, in batch 3 and no sooner."""

    def __init__(self, path: Path, gated: Gated) -> None:
        self.path = path
        self.gated = gated

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 3:
            self.gated.open.set()
            trainer.strategy.checkpoint_io._last.result()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 1:
            trainer.save_checkpoint(self.path)


class FailingGated(Gated):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def save_checkpoint(
        self, checkpoint: Any, path: Any, storage_options: Any = None
    ) -> None:
        assert self.open.wait(60)
        raise self.error


def test_failure_ends_the_fit_behind_the_running_batch(tmp_path: Path) -> None:
    steps = []

    class Counting(Small):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            steps.append(batch_idx)
            return super().training_step(batch, batch_idx)

    gated = FailingGated(RuntimeError("wires crossed"))
    trainer = quiet(
        plugins=AsyncCheckpointIO(gated),
        callbacks=Saving(tmp_path / "x.ckpt", gated),
        log_every_n_steps=1000,
    )
    with pytest.raises(RuntimeError, match="wires crossed") as caught:
        trainer.fit(Counting(), loader(100))
    assert steps == [0, 1, 2, 3]
    assert not getattr(caught.value, "__notes__", [])  # it is told once
    assert trainer.interrupted


def test_full_disk_is_told_behind_the_running_batch(tmp_path: Path) -> None:
    told_at = []

    class Listening(Small):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            told_at.append((batch_idx, len(record)))

    gated = FailingGated(OSError("no space left"))
    trainer = quiet(
        plugins=AsyncCheckpointIO(gated),
        callbacks=Saving(tmp_path / "x.ckpt", gated),
        log_every_n_steps=1000,
    )
    with pytest.warns(UserWarning, match="no space left") as record:
        trainer.fit(Listening(), loader(12))
    assert told_at == [(0, 0), (1, 0), (2, 0), (3, 0), (4, 1), (5, 1)]


def test_second_save_waits_for_the_first(tmp_path: Path) -> None:
    gated = Gated()
    io = AsyncCheckpointIO(gated)
    io.save_checkpoint(checkpoint(1.0), tmp_path / "a.ckpt")
    second = threading.Thread(
        target=io.save_checkpoint, args=(checkpoint(2.0), tmp_path / "b.ckpt")
    )
    second.start()
    second.join(0.2)
    assert second.is_alive()
    gated.open.set()
    second.join(60)
    io.teardown()
    assert gated.done == ["saved a.ckpt", "saved b.ckpt"]
    assert io.load_checkpoint(tmp_path / "a.ckpt")["state_dict"]["w"] == 1.0
    assert io.load_checkpoint(tmp_path / "b.ckpt")["state_dict"]["w"] == 2.0


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), ValueError()])
def test_run_that_ends_badly_has_its_files_all_the_same(
    error: BaseException, tmp_path: Path
) -> None:
    gated = Gated()

    class Ending(Small):
        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 2:
                threading.Timer(0.2, gated.open.set).start()
                raise error

    trainer = quiet(
        plugins=AsyncCheckpointIO(gated), callbacks=Saving(tmp_path / "x.ckpt", gated)
    )
    with pytest.raises(type(error)):
        trainer.fit(Ending(), loader(100))
    assert gated.done == ["saved x.ckpt"]


def test_process_without_a_checkpoint_to_write_has_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    io = AsyncCheckpointIO()
    assert threading.active_count() == before
    io.save_checkpoint(checkpoint(1.0), tmp_path / "a.ckpt")
    assert threading.active_count() == before + 1
    io.teardown()
    assert threading.active_count() == before


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
