"""What loggers hold after a resume: every row once, whatever was written in between."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import Model, Noisy
from small_runs import Small, loader, quiet, variant
from torch.utils.data import DataLoader

from lightgen_runtime import Trainer, seed_everything
from lightgen_runtime.callbacks import Checkpoint, ModelCheckpoint
from lightgen_runtime.loggers import CSVLogger, Logger, TensorBoardLogger


class SaveAndFail(Checkpoint):
    """Saves behind one batch, and ends the fit behind a later one."""

    def __init__(self, path: Path, save: int, fail: int) -> None:
        self.path, self.save, self.fail, self.batches = path, save, fail, 0

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.batches += 1
        if self.batches == self.save:
            trainer.save_checkpoint(self.path)
        if self.batches == self.fail:
            raise KeyboardInterrupt


class Late(Model):
    """Logs a metric that appears late, so that the file gets another column."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.trainer.current_epoch:
            self.log("late", float(batch_idx))
        return super().training_step(batch, batch_idx)


def fit(
    logger: Logger,
    failing: SaveAndFail | None = None,
    path: Path | None = None,
    **flags: Any,
) -> None:
    seed_everything(7, verbose=False)
    trainer = Trainer(
        accelerator="cpu",
        log_every_n_steps=2,
        logger=logger,
        callbacks=[] if failing is None else [failing],
        enable_checkpointing=failing is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 2, **flags},
    )
    rows = DataLoader(Noisy(), batch_size=2, shuffle=True)
    trainer.fit(Late(), rows, DataLoader(Noisy(4), batch_size=2), ckpt_path=path)


def fail(logger: Logger, path: Path, save: int = 4, fail: int = 11) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(logger, SaveAndFail(path, save, fail))


def text(logger: CSVLogger) -> str:
    return (Path(logger.log_dir) / "metrics.csv").read_text()


def rows(logger: CSVLogger) -> list[dict[str, str]]:
    with (Path(logger.log_dir) / "metrics.csv").open(newline="") as stream:
        return [
            {name: value for name, value in row.items() if value}
            for row in csv.DictReader(stream)
        ]


def scalars(folder: str) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(folder, size_guidance={"scalars": 0})
    found.Reload()
    return {
        tag: [(event.step, event.value) for event in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
    }


def test_csv_file_is_that_of_a_whole_fit(tmp_path: Path) -> None:
    whole = CSVLogger(tmp_path, name="whole")
    fit(whole)
    path = tmp_path / "x.ckpt"
    for save, failed in [(4, 11), (1, 9), (4, 4), (8, 13)]:
        folder = f"{save}-{failed}"
        fail(CSVLogger(tmp_path, name=folder, version=0), path, save, failed)
        again = CSVLogger(tmp_path, name=folder, version=0)
        fit(again, path=path)
        assert text(again) == text(whole), folder


def test_csv_file_with_a_torn_row_is_that_of_a_whole_fit(tmp_path: Path) -> None:
    whole, path = CSVLogger(tmp_path, name="whole"), tmp_path / "x.ckpt"
    fit(whole)
    fail(CSVLogger(tmp_path, name="torn", version=0), path)
    again = CSVLogger(tmp_path, name="torn", version=0)
    with (Path(again.log_dir) / "metrics.csv").open("a") as stream:
        stream.write("0,0.1")
    fit(again, path=path)
    assert text(again) == text(whole)


def test_new_folder_holds_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    whole, path = CSVLogger(tmp_path, name="whole"), tmp_path / "x.ckpt"
    fit(whole)
    first = CSVLogger(tmp_path, name="parts")
    fail(first, path)
    before = rows(first)
    second = CSVLogger(tmp_path, name="parts")
    fit(second, path=path)
    assert (first.version, second.version) == (0, 1)
    assert rows(first) == before  # nothing is lost there
    by_step = {}
    for row in [*rows(first), *rows(second)]:
        by_step[(row["step"], *sorted(row))] = row
    assert list(by_step.values()) == rows(whole)


def test_rows_of_another_run_stay(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    fail(CSVLogger(tmp_path, name="one"), path)
    other = CSVLogger(tmp_path, name="other", version=0)
    other.log_metrics({"theirs": 1.0}, step=0)
    other.save()
    other.log_metrics({"theirs": 2.0}, step=1)
    other.save()
    with pytest.warns(UserWarning, match=r"metrics\.csv` does not hold the rows"):
        fit(CSVLogger(tmp_path, name="other", version=0), path=path)
    assert [row["theirs"] for row in rows(other)[:2]] == ["1.0", "2.0"]
    assert len(rows(other)) > 2


def test_checkpoint_without_a_row_cuts_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    fail(CSVLogger(tmp_path, name="one"), path, 1, 1)
    other = CSVLogger(tmp_path, name="other", version=0)
    other.log_metrics({"theirs": 1.0}, step=0)
    other.save()
    with pytest.warns(UserWarning, match="does not hold the rows"):
        fit(CSVLogger(tmp_path, name="other", version=0), path=path)
    assert rows(other)[0]["theirs"] == "1.0"


def test_run_whose_folder_was_moved_is_gone_on_with(tmp_path: Path) -> None:
    whole, path = CSVLogger(tmp_path, name="whole"), tmp_path / "x.ckpt"
    fit(whole)
    fail(CSVLogger(tmp_path, name="here", version=0), path)
    (tmp_path / "here").rename(tmp_path / "there")
    again = CSVLogger(tmp_path, name="there", version=0)
    fit(again, path=path)
    assert text(again) == text(whole)


def test_logger_that_is_used_on_in_the_same_process(tmp_path: Path) -> None:
    whole, path = CSVLogger(tmp_path, name="whole"), tmp_path / "x.ckpt"
    fit(whole)
    logger = CSVLogger(tmp_path, name="same")
    fail(logger, path)
    fit(logger, path=path)
    assert text(logger) == text(whole)


def test_each_step_is_in_tensorboard_once(tmp_path: Path) -> None:
    whole, path = TensorBoardLogger(tmp_path, name="whole"), tmp_path / "x.ckpt"
    fit(whole)
    for save, failed in [(4, 11), (8, 13)]:
        folder = f"{save}-{failed}"
        fail(TensorBoardLogger(tmp_path, name=folder, version=0), path, save, failed)
        again = TensorBoardLogger(tmp_path, name=folder, version=0)
        fit(again, path=path)
        assert scalars(again.log_dir) == scalars(whole.log_dir)


def test_tensorboard_of_another_run_stays(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    fail(TensorBoardLogger(tmp_path, name="one"), path)
    other = TensorBoardLogger(tmp_path, name="other", version=0)
    other.log_metrics({"theirs": 1.0}, step=0)
    other.finalize("success")
    again = TensorBoardLogger(tmp_path, name="other", version=0)
    fit(again, path=path)
    assert scalars(again.log_dir)["theirs"] == [(0, 1.0)]


def test_logger_of_ones_own_gets_its_state(tmp_path: Path) -> None:
    class Counting(CSVLogger):
        taken: dict[str, Any] | None = None

        def state_dict(self) -> dict[str, Any]:
            return {"files": 3, "tensor": torch.ones(2)}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.taken = state

    path = tmp_path / "x.ckpt"
    fail(Counting(tmp_path), path)
    for logger, taken in [(Counting(tmp_path), True), (CSVLogger(tmp_path), False)]:
        fit(logger, path=path)
        if taken:
            assert logger.taken is not None
            assert logger.taken["files"] == 3


class SaveOnFullDisk(SaveAndFail):
    """Saves while the logger cannot write its rows."""

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        def refuse() -> None:
            raise OSError(28, "No space left on device")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trainer.logger, "save", refuse)
            super().on_train_batch_end(trainer, *args)


def test_logger_that_cannot_write_costs_no_checkpoint(tmp_path: Path) -> None:
    saving = SaveOnFullDisk(tmp_path / "x.ckpt", save=3, fail=99)
    with pytest.warns(UserWarning, match="CSVLogger cannot write.*No space left"):
        fit(CSVLogger(tmp_path), saving)
    own = torch.load(tmp_path / "x.ckpt")["lightgen"]
    assert own["loggers"] == [{"class": "CSVLogger", "state": {}}]


def test_fit_that_does_nothing_cuts_nothing(tmp_path: Path) -> None:
    def trainer(epochs: int) -> Trainer:
        return quiet(
            max_epochs=epochs,
            logger=CSVLogger(tmp_path, version=0),
            log_every_n_steps=1,
            callbacks=[ModelCheckpoint(tmp_path, save_top_k=-1)],
            enable_checkpointing=True,
        )

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        loss = Small.training_step(self, batch, batch_idx)
        self.log("loss", loss)
        return loss

    module = variant(training_step=training_step)
    first = trainer(3)
    first.fit(module, loader())
    before = text(first.logger)
    trainer(1).fit(module, loader(), ckpt_path=tmp_path / "epoch=0-step=4.ckpt")
    assert text(first.logger) == before
