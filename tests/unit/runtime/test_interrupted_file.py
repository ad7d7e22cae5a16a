"""The file that an interruption leaves: whose it is, and when it goes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import Small, loader, quiet, variant

from lightgen_runtime.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from lightgen_runtime.io.async_checkpoint_io import AsyncCheckpointIO
from lightgen_runtime.io.checkpoint_io import TorchCheckpointIO
from lightgen_runtime.trainer import interruption
from lightgen_runtime.utilities.exceptions import (
    CheckpointMismatchError,
    SIGTERMException,
)


class FullDisk(TorchCheckpointIO):
    """Has no room for any checkpoint."""

    def save_checkpoint(
        self, checkpoint: Any, path: Any, storage_options: Any = None
    ) -> None:
        raise OSError(28, "No space left on device", str(path))


def stopped_at(step: int, number: int = signal.SIGTERM) -> Small:
    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.trainer.global_step == step:
            os.kill(os.getpid(), number)
        return Small.training_step(self, batch, batch_idx)

    return variant(training_step=training_step)


def trainer_in(folder: Path, **flags: Any) -> Any:
    every = flags.pop("every", 1)
    callbacks = [ModelCheckpoint(folder, every_n_epochs=every)]
    callbacks += flags.pop("callbacks", [])
    chosen = {"max_epochs": 3, "default_root_dir": folder.parent, **flags}
    return quiet(callbacks=callbacks, enable_checkpointing=True, **chosen)


def stop(trainer: Any, module: Small, ckpt_path: Path | None = None) -> None:
    with pytest.raises(SIGTERMException):
        trainer.fit(module, loader(), ckpt_path=ckpt_path)


def interrupted(folder: Path, every: int = 1) -> Path:
    stop(trainer_in(folder, every=every), stopped_at(5))
    (path,) = folder.glob("interrupted-*")
    return path


@pytest.mark.parametrize(
    "flags", [{"max_epochs": 1}, {"fast_dev_run": True}, {"every": 9}]
)
def test_file_stays_until_there_is_a_newer_one(
    tmp_path: Path, flags: dict[str, Any]
) -> None:
    path = interrupted(tmp_path / "kept", flags.get("every", 1))
    trainer_in(path.parent, **flags).fit(Small(), loader(), ckpt_path=path)
    assert path.exists()


@pytest.mark.parametrize("plugins", [[], [AsyncCheckpointIO()]])
def test_file_goes_when_there_is_a_newer_one(tmp_path: Path, plugins: Any) -> None:
    path = interrupted(tmp_path / "kept")
    trainer = trainer_in(path.parent, plugins=plugins)
    trainer.fit(Small(), loader(), ckpt_path=path)
    assert not path.exists()


def test_full_disk_leaves_the_file_to_a_thread_that_writes(tmp_path: Path) -> None:
    path = interrupted(tmp_path / "kept")
    trainer = trainer_in(path.parent, plugins=[AsyncCheckpointIO(FullDisk())])
    with pytest.warns(UserWarning, match="No space left"):
        stop(trainer, stopped_at(7), path)
    assert path.exists()


def test_file_that_cannot_be_removed_ends_no_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Any, path: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    path = interrupted(tmp_path / "kept")
    trainer = trainer_in(path.parent)
    monkeypatch.setattr(trainer.strategy, "remove_checkpoint", refuse.__get__(trainer))
    with pytest.warns(UserWarning, match="has lost its place but stays"):
        trainer.fit(Small(), loader(), ckpt_path=path)
    assert trainer.global_step == 12


def test_file_of_another_fit_at_the_same_step_stays(tmp_path: Path) -> None:
    path = interrupted(tmp_path)
    before = path.read_bytes()
    stop(trainer_in(tmp_path), stopped_at(5))
    assert path.read_bytes() == before
    assert (tmp_path / "interrupted-step=6-v1.ckpt").exists()


def test_state_that_a_signal_left_is_gone_on_from_unasked(tmp_path: Path) -> None:
    stop(
        trainer_in(tmp_path, callbacks=[OnExceptionCheckpoint(tmp_path)]), stopped_at(5)
    )
    assert not (tmp_path / "on_exception.ckpt").exists()
    again = trainer_in(tmp_path, callbacks=[OnExceptionCheckpoint(tmp_path)])
    with pytest.warns(UserWarning, match="goes on from"):
        again.fit(Small(), loader())
    assert again.global_step == 12
    assert not list(tmp_path.glob("interrupted-*"))


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SLURM job whose requests to start again go into the file that this returns."""
    calls = tmp_path / "calls"
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    return calls


def restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    interruption._fits.clear()  # as in another process


@pytest.mark.usefixtures("job")
def test_fit_of_a_job_goes_on_from_its_own_state_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    trainer_in(first).fit(Small(), loader())
    stop(trainer_in(second), stopped_at(5, signal.SIGUSR1))
    restart(monkeypatch)
    for folder, end in ((first, first), (second, tmp_path)):
        trainer = trainer_in(folder)
        trainer.fit(Small(), loader())
        assert Path(trainer.ckpt_path).parent == end
    assert list(tmp_path.glob("hpc_ckpt_*")) == []


@pytest.mark.usefixtures("job")
def test_fits_of_a_job_in_one_folder_keep_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("one", "one", "other"):
        stop(trainer_in(tmp_path / folder), stopped_at(5))
    stop(quiet(default_root_dir=tmp_path, enable_checkpointing=True), stopped_at(2))
    monkeypatch.setenv("SLURM_PROCID", "1")  # a program that works on its own
    restart(monkeypatch)
    stop(trainer_in(tmp_path / "one"), stopped_at(5))
    assert len(list(tmp_path.glob("hpc_ckpt_7-*.ckpt"))) == 4
    assert (tmp_path / "hpc_ckpt_7.ckpt").exists()


def test_job_without_a_state_is_not_put_back(tmp_path: Path, job: Path) -> None:
    trainer = quiet(default_root_dir=tmp_path)
    with pytest.warns(UserWarning, match="stays out of the queue"):
        stop(trainer, stopped_at(2, signal.SIGUSR1))
    assert not job.exists()
    stop(trainer_in(tmp_path / "kept"), stopped_at(2, signal.SIGUSR1))
    assert job.read_text() == "requeue 7\n"


def test_partial_file_is_passed_over_and_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one of several processes writes inside an epoch, once the others are gone."""

    def fail(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.trainer.global_step == 6:
            raise ZeroDivisionError
        return Small.training_step(self, batch, batch_idx)

    trainer = trainer_in(tmp_path, callbacks=[OnExceptionCheckpoint(tmp_path)])
    parted = property(lambda self: True)
    with monkeypatch.context() as patch:
        patch.setattr(type(trainer.strategy), "is_parted", parted)
        with pytest.raises(ZeroDivisionError):
            trainer.fit(variant(training_step=fail), loader())
    path = tmp_path / "on_exception.ckpt"
    content = torch.load(path, weights_only=True)
    assert content["lightgen"]["record"]["role"] == "partial"
    with pytest.raises(CheckpointMismatchError, match="one of several processes"):
        trainer_in(tmp_path).fit(Small(), loader(), ckpt_path=path)
    again = trainer_in(tmp_path, callbacks=[OnExceptionCheckpoint(tmp_path)])
    again.fit(Small(), loader())
    assert (again.ckpt_path, again.global_step) == (None, 12)
    assert not path.exists()
