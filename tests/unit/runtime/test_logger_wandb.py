"""What `WandbLogger` writes offline, read from the file that `wandb sync` would upload."""

from __future__ import annotations

import json
import pickle
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
from small_runs import Small, fitted, quiet
from torch.utils.data import DataLoader
from wandb.proto.wandb_internal_pb2 import Record

from lightgen_runtime.callbacks import ModelCheckpoint
from lightgen_runtime.loggers import WandbLogger
from lightgen_runtime.utilities.exceptions import (
    MisconfigurationException,
    MissingDependencyError,
)

BLOCK, HEADER = 32768, 7  # the framing of LevelDB's log, which the file has


@pytest.fixture(autouse=True)
def _closed_runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Never leave the machine, print nothing, leave no run open."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    yield
    wandb.finish()


def records(folder: Path) -> list[Record]:
    """Close the open run and read everything that it wrote."""
    wandb.finish()
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    # Another process writes the file, and may do so after `finish` has returned.
    deadline = time.monotonic() + 60
    while "exit" not in [r.WhichOneof("record_type") for r in read(path)]:
        assert time.monotonic() < deadline, f"{path} was never completed"
        time.sleep(0.05)
    return read(path)


def read(path: Path) -> list[Record]:
    """Parse what is in the file so far."""
    content, position, parts, found = path.read_bytes(), HEADER, b"", []
    while position + HEADER <= len(content):
        if BLOCK - position % BLOCK < HEADER:  # too little room: the block is padded
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        position += HEADER
        parts += content[position : position + length]
        position += length
        if position > len(content):  # still being written
            break
        if kind in (1, 4):  # a whole record, or the last part of one
            found.append(Record.FromString(parts))
            parts = b""
    return found


def history(folder: Path) -> list[dict[str, Any]]:
    rows = []
    for record in records(folder):
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            row = {(i.key or ".".join(i.nested_key)): i.value_json for i in items}
            row = {key: json.loads(value) for key, value in row.items()}
            rows.append({key: row[key] for key in row if not key.startswith("_")})
    return rows


def config(folder: Path) -> dict[str, Any]:
    found = {}
    for record in records(folder):
        kind = record.WhichOneof("record_type")
        for source in (record.config, record.run.config):
            if kind in ("config", "run"):
                for item in source.update:
                    found[item.key or ".".join(item.nested_key)] = item.value_json
    return {key: json.loads(value) for key, value in found.items()}


def test_fit_writes_the_logged_metrics_at_their_steps(tmp_path: Path) -> None:
    logger = WandbLogger(save_dir=tmp_path, offline=True)
    fitted(Small(), logger=logger, max_epochs=2)
    rows = [row for row in history(tmp_path) if "val_loss" in row]
    assert [row["trainer/global_step"] for row in rows] == [3, 7]
    assert [row["epoch"] for row in rows] == [0, 1]
    assert rows[1]["val_loss"] < rows[0]["val_loss"]


def test_hyperparameters_become_the_config(tmp_path: Path) -> None:
    logger = WandbLogger(save_dir=tmp_path, offline=True)
    logger.log_hyperparams({"lr": 0.1, "net": {"act": torch.relu, "width": 8}})
    found = config(tmp_path)
    assert found["lr"] == 0.1
    assert found["net"]["width"] == 8
    assert "relu" in found["net"]["act"]


def test_prefix_and_rows_without_a_step(tmp_path: Path) -> None:
    logger = WandbLogger(save_dir=tmp_path, offline=True, prefix="exp")
    logger.log_metrics({"loss": 1.0})
    logger.log_metrics({"loss": 2.0}, step=5)
    rows = history(tmp_path)
    assert [row["exp-loss"] for row in rows] == [1.0, 2.0]
    assert rows[1]["trainer/global_step"] == 5


def test_names_come_from_arguments_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = WandbLogger(name="run", version="abc", save_dir=tmp_path)
    assert (logger.name, logger.version) == ("lightning_logs", "abc")
    assert logger.save_dir == str(tmp_path)
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    assert WandbLogger(dir=tmp_path, save_dir=None, id="x").name == "mine"
    assert logger.experiment.name == "run"
    assert logger.experiment.id == "abc"
    assert logger.version == "abc"


def test_open_run_is_used_with_a_warning(tmp_path: Path) -> None:
    run = wandb.init(dir=tmp_path, project="p")
    with pytest.warns(UserWarning, match="already open"):
        assert WandbLogger(save_dir=tmp_path).experiment is run


def test_unpickled_logger_goes_on_with_the_run(tmp_path: Path) -> None:
    logger = WandbLogger(save_dir=tmp_path, offline=True)
    number = logger.experiment.id
    assert pickle.loads(pickle.dumps(logger)).version == number


def test_given_run_is_used(tmp_path: Path) -> None:
    run = wandb.init(dir=tmp_path, project="p")
    logger = WandbLogger(experiment=run)
    assert logger.experiment is run
    assert logger.version == run.id


def test_table_and_image(tmp_path: Path) -> None:
    logger = WandbLogger(save_dir=tmp_path, offline=True)
    logger.log_text("words", columns=["a"], data=[["x"]], step=1)
    logger.log_image("picture", [torch.zeros(3, 4, 4)], caption=["black"], step=2)
    first, second = history(tmp_path)
    assert first["words.nrows"] == 1
    assert second["picture.captions"] == ["black"]


def test_media_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    logger = WandbLogger(save_dir=tmp_path, offline=True)
    with pytest.raises(ValueError, match="1 items and 2 values for 'caption'"):
        logger.log_image("picture", [torch.zeros(3, 4, 4)], caption=["a", "b"])
    with pytest.raises(TypeError, match=r"log_audio.*got str; a list is needed"):
        logger.log_audio("sound", "file.wav")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("log_model", "save_top_k", "expected"),
    [("all", 1, 2), (True, 1, 1), (True, -1, 2), (False, 1, 0)],
)
def test_checkpoints_are_uploaded_as_log_model_says(
    tmp_path: Path, log_model: Any, save_top_k: int, expected: int
) -> None:
    logger = WandbLogger(save_dir=tmp_path, log_model=log_model)
    sent: list[tuple[str, dict[str, Any], list[str]]] = []

    def log_artifact(artifact: Any, aliases: list[str]) -> None:
        assert Path(artifact.manifest.entries["model.ckpt"].local_path).is_file()
        sent.append((artifact.name, artifact.metadata, aliases))

    logger.experiment.log_artifact = log_artifact
    checkpoint = ModelCheckpoint(tmp_path / "ckpt", save_top_k=save_top_k)
    trainer = quiet(
        logger=logger,
        callbacks=[checkpoint],
        enable_checkpointing=True,
        max_epochs=2,
    )
    trainer.fit(Small(), DataLoader(torch.ones(4, 4)))

    assert len(sent) == expected
    for name, metadata, aliases in sent:
        assert name == f"model-{logger.version}"
        assert metadata["ModelCheckpoint"]["save_top_k"] == save_top_k
        assert aliases[0] == "latest"
    if sent:
        newest = Path(checkpoint.best_model_path).name
        assert sent[-1][1]["original_filename"] == newest


def test_failed_run_uploads_nothing(tmp_path: Path) -> None:
    logger = WandbLogger(save_dir=tmp_path, log_model=True)
    sent: list[Any] = []
    logger.experiment.log_artifact = lambda *args, **kwargs: sent.append(args)
    logger.after_save_checkpoint(ModelCheckpoint(tmp_path))
    logger.finalize("failed")
    assert sent == []


def test_checkpoints_cannot_be_uploaded_offline() -> None:
    with pytest.raises(MisconfigurationException, match="uploaded online only"):
        WandbLogger(offline=True, log_model="all")


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(MissingDependencyError, match="pip install wandb"):
        WandbLogger()
    monkeypatch.undo()


def test_other_ranks_open_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightgen_runtime.utilities.rank_zero.rank_zero_only.rank", 1)
    logger = WandbLogger(save_dir=tmp_path, offline=True)
    logger.experiment.log({"loss": 1.0})
    logger.log_metrics({"loss": 1.0})
    logger.log_hyperparams({"lr": 1.0})
    logger.finalize("success")
    assert wandb.run is None
