"""A job that is started again with no time to save before: it finds what it has written."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import Small, Stream, loader, quiet, variant
from torch.utils.data import DataLoader

from lightgen_runtime.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from lightgen_runtime.io.store import read_manifest
from lightgen_runtime.loggers import CSVLogger
from lightgen_runtime.plugins.io import DistributedCheckpointIO
from lightgen_runtime.strategies import SingleDeviceStrategy, elastic
from lightgen_runtime.trainer import interruption, job
from lightgen_runtime.trainer.interruption import begin_fit
from lightgen_runtime.trainer.restarts import newest_of_job

BATCHES = 4


class Killed(BaseException):
    """Stands for a kill: nothing is saved."""


def killed_at(step: int) -> Any:
    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.trainer.global_step == step:
            raise Killed
        return Small.training_step(self, batch, batch_idx)

    module = variant(training_step=training_step)
    type(module).__name__ = type(module).__qualname__ = "Small"
    return module


def start(job: str, monkeypatch: pytest.MonkeyPatch, restarts: int = 0) -> None:
    """Be a new process of a SLURM job."""
    monkeypatch.setenv("SLURM_JOB_ID", job)
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
    interruption._fits.clear()


def trainer_in(folder: Path, **flags: Any) -> Any:
    callbacks = [ModelCheckpoint(folder, save_top_k=-1), *flags.pop("callbacks", [])]
    chosen = {"max_epochs": 3, "default_root_dir": folder.parent, **flags}
    return quiet(callbacks=callbacks, enable_checkpointing=True, **chosen)


def kill(step: int, trainer: Any) -> None:
    with pytest.raises(Killed):
        trainer.fit(killed_at(step), loader())


def source_of(trainer: Any) -> str | None:
    trainer.fit(Small(), loader())
    return None if trainer.ckpt_path is None else Path(trainer.ckpt_path).name


def test_requeued_job_takes_its_own_newest_not_that_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start("7", monkeypatch)
    kill(2 * BATCHES + 1, trainer_in(tmp_path))
    start("8", monkeypatch)
    trainer_in(tmp_path).fit(Small(), loader())  # complete, and newer
    own = tmp_path / "epoch=1-step=8.ckpt"
    assert own.exists()
    start("7", monkeypatch, restarts=1)
    trainer = trainer_in(tmp_path)
    assert source_of(trainer) == own.name
    start("9", monkeypatch)
    whole = trainer_in(tmp_path / "whole")
    assert source_of(whole) is None
    for one, other in zip(
        trainer.lightning_module.parameters(),
        whole.lightning_module.parameters(),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_damaged_checkpoint_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start("7", monkeypatch)
    kill(2 * BATCHES + 1, trainer_in(tmp_path))
    newest = tmp_path / "epoch=1-step=8.ckpt"
    newest.write_bytes(newest.read_bytes()[:-50])
    start("7", monkeypatch, restarts=1)
    with pytest.warns(UserWarning, match="step=8.ckpt` is passed over"):
        assert source_of(trainer_in(tmp_path)) == "epoch=0-step=4.ckpt"


def test_folder_whose_replacement_was_cut_off_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trainer() -> Any:
        return quiet(
            max_epochs=3,
            callbacks=[ModelCheckpoint(tmp_path, save_top_k=0, save_last=True)],
            enable_checkpointing=True,
            plugins=DistributedCheckpointIO(),
        )

    start("7", monkeypatch)
    kill(2 * BATCHES + 1, trainer())
    (tmp_path / "last.ckpt").rename(tmp_path / ".last.ckpt.former")
    start("7", monkeypatch, restarts=1)
    assert source_of(trainer()) == "last.ckpt"


def test_state_inside_a_batch_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start("7", monkeypatch)
    callbacks = [OnExceptionCheckpoint(tmp_path)]
    kill(BATCHES + 1, trainer_in(tmp_path, callbacks=callbacks))
    assert (tmp_path / "on_exception.ckpt").exists()
    start("7", monkeypatch, restarts=1)
    assert source_of(trainer_in(tmp_path)) == "epoch=0-step=4.ckpt"


def other_model(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Any:
    return variant()


def other_command(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Any:
    monkeypatch.setattr(sys, "orig_argv", [*sys.orig_argv, "--seed", "2"])
    return Small()


def other_process(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Any:
    monkeypatch.setenv("SLURM_PROCID", "1")
    return Small()


def first_start(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Any:
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    return Small()


def copied_file(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Any:
    """Of another run, under another name, as one that somebody put there."""
    shutil.move(folder / "epoch=0-step=4.ckpt", folder / "mine.ckpt")
    return Small()


@pytest.mark.parametrize(
    "change", [other_model, other_command, other_process, first_start, copied_file]
)
def test_what_is_not_this_fits_is_not_taken(
    change: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start("7", monkeypatch)
    kill(BATCHES + 1, trainer_in(tmp_path))
    start("7", monkeypatch, restarts=1)
    trainer = trainer_in(tmp_path)
    trainer.fit(change(monkeypatch, tmp_path), loader())
    assert trainer.ckpt_path is None


@pytest.mark.parametrize("is_stream", [False, True])
def test_file_from_inside_an_epoch_is_for_who_can_go_on_from_it(
    is_stream: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a stream, other processes do not know what is left."""
    start("7", monkeypatch)
    every = ModelCheckpoint(tmp_path, every_n_train_steps=2, save_top_k=-1)
    trainer = quiet(max_epochs=3, enable_checkpointing=True, callbacks=[every])
    data = DataLoader(Stream(), 2) if is_stream else loader()
    with pytest.raises(Killed):
        trainer.fit(killed_at(BATCHES + 3), data)
    start("7", monkeypatch, restarts=1)
    inside, at_end = "epoch=1-step=6.ckpt", "epoch=0-step=4.ckpt"
    for processes, name in ((1, inside), (2, at_end if is_stream else inside)):
        trainer = trainer_in(tmp_path)
        begin_fit(trainer)
        monkeypatch.setattr(SingleDeviceStrategy, "world_size", processes)
        monkeypatch.setattr(type(trainer), "lightning_module", Small())
        assert newest_of_job(trainer) == str(tmp_path / name)
        interruption._fits.clear()


def keep_marks(path: Path) -> None:
    path.write_text(json.dumps(job.marks("a fit")))


def test_spawned_process_knows_its_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own command line tells of file descriptors alone."""
    start("7", monkeypatch)
    processes = []
    for number, program in enumerate(["one.py", "other.py"]):
        monkeypatch.setattr(sys, "argv", [program])
        path = tmp_path / str(number)
        processes.append(get_context("spawn").Process(target=keep_marks, args=(path,)))
        processes[-1].start()
    for process in processes:
        process.join()
    one, other = (json.loads((tmp_path / number).read_text()) for number in "01")
    assert one != other


def test_log_goes_on_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows_of(root: Path, module: Any) -> str:
        trainer = quiet(
            max_epochs=3,
            default_root_dir=root,
            logger=CSVLogger(root),
            enable_checkpointing=True,
        )
        with suppress(Killed):
            trainer.fit(module, loader(), loader())
        assert [path.name for path in (root / "lightning_logs").iterdir()] == [
            "version_0"
        ]
        return (root / "lightning_logs/version_0/metrics.csv").read_text()

    start("7", monkeypatch)
    whole = rows_of(tmp_path / "whole", Small())
    killed = rows_of(tmp_path / "killed", killed_at(BATCHES + 1))
    start("7", monkeypatch, restarts=1)
    assert killed != rows_of(tmp_path / "killed", Small()) == whole


def test_mark_is_in_the_file_and_in_its_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "epoch=0-step=4.ckpt"
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    trainer_in(tmp_path / "alone", max_epochs=1).fit(Small(), loader())
    assert "jobs" not in read_manifest(tmp_path / "alone")[name]
    start("7", monkeypatch)
    launch = elastic.Launch("abc", is_again=False)
    monkeypatch.setattr("lightgen_runtime.trainer.job.torchrun_launch", lambda: launch)
    trainer_in(tmp_path / "both", max_epochs=1).fit(Small(), loader())
    jobs = read_manifest(tmp_path / "both")[name]["jobs"]
    assert [job.rpartition("-")[0] for job in jobs] == ["slurm-7", "torchrun-abc"]
    saved = torch.load(tmp_path / "both" / name, weights_only=True)
    assert saved["lightgen"]["record"]["jobs"] == jobs
