"""Loggers and results on a disk that fills up, goes away and comes back."""

from __future__ import annotations

import csv
import errno
import os
import shutil
import subprocess
import sys
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from small_disk import files_no_larger_than
from torch import Tensor

from lightgen_runtime import Callback, Trainer, seed_everything
from lightgen_runtime.callbacks import ModelCheckpoint
from lightgen_runtime.demos.boring_classes import BoringModel
from lightgen_runtime.loggers import CSVLogger, TensorBoardLogger
from lightgen_runtime.loggers import csv_logs as csv_logs_module
from lightgen_runtime.loggers import event_file as event_file_module

Logger = CSVLogger | TensorBoardLogger


class Logging(BoringModel):
    def training_step(self, batch: Tensor, batch_idx: int) -> Any:
        output = super().training_step(batch, batch_idx)
        self.log("loss", output["loss"])
        if batch_idx > 10:
            self.log("late", float(batch_idx))
        return output


class Disk(Callback):
    """Lets no file grow beyond a size between two steps; the second may never come."""

    def __init__(self, size: int, full_at: int, free_at: int | None) -> None:
        self.size, self.full_at, self.free_at = size, full_at, free_at
        self.limit = ExitStack()

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.full_at:
            self.limit.enter_context(files_no_larger_than(self.size))
        if trainer.global_step == self.free_at:
            self.limit.close()


class GoneDisk(Callback):
    """Takes a folder away before one step, and gives it back before another."""

    def __init__(self, folder: Path, gone_at: int, back_at: int | None) -> None:
        self.folder, self.gone_at, self.back_at = folder, gone_at, back_at
        self.elsewhere = folder.with_name("elsewhere")

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.gone_at:
            self.folder.rename(self.elsewhere)
        if trainer.global_step == self.back_at:
            self.elsewhere.rename(self.folder)


def fit(
    logger: Logger, *callbacks: Callback, steps: int = 20, **flags: Any
) -> list[str]:
    """Train; return what was warned of."""
    seed_everything(1, verbose=False)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=steps,
        limit_val_batches=0,
        log_every_n_steps=1,
        callbacks=list(callbacks),
        logger=logger,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings(record=True) as caught, ExitStack() as limits:
        warnings.simplefilter("always")
        for callback in callbacks:
            if isinstance(callback, Disk):
                limits.callback(callback.limit.close)
        trainer.fit(Logging(), **flags)
    assert trainer.state.status == "finished"
    return [str(warning.message) for warning in caught]


def csv_logger(folder: Path) -> CSVLogger:
    return CSVLogger(folder, "", "run", flush_logs_every_n_steps=1)


def text(folder: Path) -> str:
    return (folder / "run" / "metrics.csv").read_text()


def values(folder: Path) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder / "run")).Reload()
    return [(event.step, event.value) for event in read.Scalars("loss")]


# Full while rows are added, while a column is, and before the first row.
@pytest.mark.parametrize(
    ("size", "full", "free"), [(90, 3, 8), (250, 9, 15), (5, 0, 2)]
)
def test_rows_wait_until_there_is_room(
    size: int, full: int, free: int, tmp_path: Path
) -> None:
    fit(csv_logger(tmp_path / "expected"))
    (said,) = fit(csv_logger(tmp_path), Disk(size, full, free))
    assert "metrics.csv` cannot be written: File too large. The fit goes on" in said
    assert text(tmp_path) == text(tmp_path / "expected")


def test_end_of_the_fit_says_how_many_rows_are_missing(tmp_path: Path) -> None:
    fit(csv_logger(tmp_path / "expected"))
    logger = csv_logger(tmp_path)
    with files_no_larger_than(200):
        _, last = fit(logger)
    written = text(tmp_path)
    rows = len(written.splitlines()) - 1
    assert written.endswith("\n")
    assert f"{20 - rows} rows of metrics cannot be written: File too large." in last
    assert f"missing in `{tmp_path / 'run' / 'metrics.csv'}`" in last
    logger.save()
    assert text(tmp_path) == text(tmp_path / "expected")


def test_another_cause_is_told_and_a_disk_may_go_and_come_back(tmp_path: Path) -> None:
    fit(csv_logger(tmp_path / "expected"))
    folder = tmp_path / "run"
    said = fit(csv_logger(tmp_path), Disk(90, 2, 14), GoneDisk(folder, 6, 10))
    assert [s.partition("written: ")[2].partition(".")[0] for s in said] == [
        "File too large",
        "No such file or directory",
        "File too large",
    ]
    assert text(tmp_path) == text(tmp_path / "expected")


def test_rows_that_wait_are_in_the_checkpoint(tmp_path: Path) -> None:
    """The disk of the logs is away when the checkpoint is written and the fit killed."""
    fit(csv_logger(tmp_path / "expected"))
    logs, saved = tmp_path / "logs", tmp_path / "saved"
    checkpoint = ModelCheckpoint(saved, every_n_train_steps=8, save_top_k=-1)
    away = GoneDisk(logs / "run", 5, None)
    fit(csv_logger(logs), away, checkpoint, steps=12)
    away.elsewhere.rename(logs / "run")
    assert len(text(logs).splitlines()) == 6
    fit(csv_logger(logs), ckpt_path=saved / "epoch=0-step=8.ckpt")
    assert text(logs) == text(tmp_path / "expected")


def test_rows_behind_a_checkpoint_are_dropped_on_a_full_disk(tmp_path: Path) -> None:
    """No room for a file without the column that came behind the checkpoint."""
    fit(csv_logger(tmp_path / "expected"))
    checkpoint = ModelCheckpoint(tmp_path, every_n_train_steps=8, save_top_k=-1)
    fit(csv_logger(tmp_path), checkpoint)
    resumed = csv_logger(tmp_path)
    path = tmp_path / "epoch=0-step=8.ckpt"
    fit(resumed, Disk(5, 8, 12), ckpt_path=path)
    assert text(tmp_path) == text(tmp_path / "expected")


def test_rows_beyond_the_limit_are_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_logs_module, "_MOST_WAITING_VALUES", 18)
    logger = csv_logger(tmp_path)
    _, limit, last = fit(logger, Disk(5, 0, None))
    assert "More than 18 values wait" in limit
    assert "and 16 rows have been dropped" in last


def test_part_of_a_row_that_could_not_be_cut_off_is_cut_off_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = csv_logger(tmp_path)
    logger.log_metrics({"a": 1.0}, 0)

    def refuse(path: Any, length: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    logger.log_metrics({"a": 2.0 / 3}, 1)
    with monkeypatch.context() as patch, files_no_larger_than(40):
        patch.setattr(os, "truncate", refuse)
        with pytest.warns(UserWarning, match="File too large"):
            logger.log_metrics({"a": 1.0 / 3}, 2)
    assert len(text(tmp_path)) == 40
    logger.save()
    rows = list(csv.DictReader(text(tmp_path).splitlines()))
    assert [float(row["a"]) for row in rows] == [1.0, 2.0 / 3, 1.0 / 3]


def test_hyperparameters_wait_as_well(tmp_path: Path) -> None:
    logger = csv_logger(tmp_path)
    with (
        files_no_larger_than(5),
        pytest.warns(UserWarning, match="hparams.yaml` cannot"),
    ):
        logger.log_hyperparams({"width": 12})
    assert not (tmp_path / "run" / "hparams.yaml").exists()
    logger.save()
    assert (tmp_path / "run" / "hparams.yaml").read_text() == "width: 12\n"


@pytest.mark.parametrize("gone", [True, False])
def test_records_of_tensorboard_wait(gone: bool, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    fit(TensorBoardLogger(tmp_path / "expected", "", "run"))
    disk = GoneDisk(tmp_path / "run", 4, 12) if gone else Disk(500, 4, 12)
    (said,) = fit(TensorBoardLogger(tmp_path, "", "run"), disk)
    assert "what is logged waits, and each flush tries again" in said
    assert values(tmp_path) == values(tmp_path / "expected")


def test_records_of_tensorboard_that_are_lost_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.setattr(event_file_module, "_MOST_WAITING_BYTES", 300)
    first, last = fit(TensorBoardLogger(tmp_path, "", "run"), Disk(500, 4, None))
    assert "File too large" in first
    kept = values(tmp_path)
    assert (
        "records of TensorBoard cannot be written and are lost: File too large" in last
    )
    assert 0 < len(kept) < 10
    assert [step for step, _ in kept] == list(range(len(kept)))


def test_records_of_tensorboard_that_wait_are_in_the_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    fit(TensorBoardLogger(tmp_path / "expected", "", "run"))
    logs, saved = tmp_path / "logs", tmp_path / "saved"
    checkpoint = ModelCheckpoint(saved, every_n_train_steps=8, save_top_k=-1)
    away = GoneDisk(logs / "run", 5, None)
    fit(TensorBoardLogger(logs, "", "run"), away, checkpoint, steps=12)
    shutil.rmtree(logs / "run", ignore_errors=True)
    away.elsewhere.rename(logs / "run")
    path = saved / "epoch=0-step=8.ckpt"
    fit(TensorBoardLogger(logs, "", "run"), ckpt_path=path)
    assert values(logs) == values(tmp_path / "expected")


PROGRAM = """
import resource, signal, sys
from lightgen_runtime import callbacks, demos
from lightgen_runtime.cli import ProjectCLI
from lightgen_runtime.demos.boring_classes import BoringModel

class Model(BoringModel):
    def on_train_end(self):
        if "back" in sys.argv[0]:
            limits(resource.RLIM_INFINITY)

def limits(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limits(10)
sys.argv[1:] = "fit --json --trainer.accelerator=cpu --trainer.max_epochs=1".split()
sys.argv += ["--trainer.enable_progress_bar=false", "--trainer.logger=false"]
ProjectCLI(Model)
"""


@pytest.mark.parametrize("name", ["full.py", "back.py"])
def test_project_on_a_full_disk_trains_and_shows_its_result(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, name],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert '"status": "completed"' in done.stdout
    assert done.stderr.count("config.yaml` cannot be written: File too large.") == 1
    is_back = name == "back.py"
    assert is_back != ("summary.json` cannot be written" in done.stderr)
    assert is_back == (tmp_path / "runs" / "1" / "summary.json").exists()
    assert is_back == (tmp_path / "runs" / "1" / "config.yaml").exists()
