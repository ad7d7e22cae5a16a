"""Checkpoints behind a scheme: in memory, and over HTTP."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from small_runs import Small, loader, quiet, variant

from lightgen_runtime.callbacks import Callback, ModelCheckpoint, OnExceptionCheckpoint
from lightgen_runtime.io import AsyncCheckpointIO, TorchCheckpointIO, location
from lightgen_runtime.io.store import newest_valid, read_manifest, verify
from lightgen_runtime.utilities.exceptions import (
    CheckpointFormatError,
    CheckpointNotFoundError,
    CheckpointWriteError,
    MisconfigurationException,
    MissingDependencyError,
    SIGTERMException,
)


@pytest.fixture
def memory() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def names(memory: Any, folder: str) -> list[str]:
    return sorted(path.rpartition("/")[2] for path in memory.ls(folder, detail=False))


def fit(scores: list[float], callback: Any, **flags: Any) -> Any:
    def validation_step(self: Any, batch: Any, batch_idx: int) -> None:
        self.log("score", scores[self.trainer.current_epoch])

    trainer = quiet(
        callbacks=[callback],
        enable_checkpointing=True,
        max_epochs=len(scores),
        num_sanity_val_steps=0,
    )
    module = variant(validation_step=validation_step)
    trainer.fit(module, loader(), loader(2), **flags)
    return trainer


def ranked() -> ModelCheckpoint:
    return ModelCheckpoint(
        "memory://runs/1", monitor="score", save_top_k=2, save_last=True
    )


def test_fit_saves_ranks_removes_and_resumes(memory: Any) -> None:
    first = ranked()
    fit([3.0, 2.0, 1.0], first)
    kept = ["epoch=1-step=8.ckpt", "epoch=2-step=12.ckpt", "last.ckpt"]
    assert names(memory, "/runs/1") == [*kept, "manifest.json"]
    assert sorted(read_manifest("memory://runs/1")) == kept
    assert first.best_model_path == "memory://runs/1/epoch=2-step=12.ckpt"
    second = ranked()
    trainer = fit([3.0, 2.0, 1.0, 0.5], second, ckpt_path="last")
    assert trainer.ckpt_path == "memory://runs/1/last.ckpt"
    assert trainer.global_step == 16
    assert second.best_model_path == "memory://runs/1/epoch=3-step=16.ckpt"
    assert len(second.best_k_models) == 2
    assert names(memory, "/runs/1")[:2] == [
        "epoch=2-step=12.ckpt",
        "epoch=3-step=16.ckpt",
    ]
    first.to_yaml()
    assert "best_k_models.yaml" in names(memory, "/runs/1")
    trainer.test(Small(), loader(), ckpt_path=second.best_model_path, verbose=False)


def test_users_save_and_load(memory: Any) -> None:
    trainer = quiet()
    trainer.fit(Small(), loader())
    trainer.save_checkpoint("memory://x.ckpt")
    loaded = Small.load_from_checkpoint("memory://x.ckpt")
    assert torch.equal(loaded.layer.weight, trainer.model.layer.weight)
    resumed = quiet(max_epochs=2)
    resumed.fit(Small(), loader(), ckpt_path="memory://x.ckpt")
    assert resumed.global_step == 8
    assert verify("memory://x.ckpt") is None
    assert newest_valid("memory://") == "memory://x.ckpt"


def test_exception_is_kept_and_removed(memory: Any) -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        raise ZeroDivisionError

    def failing() -> Any:
        return quiet(
            callbacks=[OnExceptionCheckpoint("memory://runs")],
            enable_checkpointing=True,
        )

    with pytest.raises(ZeroDivisionError):
        failing().fit(variant(training_step=training_step), loader())
    assert memory.exists("/runs/on_exception.ckpt")
    with pytest.warns(UserWarning, match="goes on from `memory://runs/on_exc"):
        failing().fit(Small(), loader())
    assert not memory.exists("/runs/on_exception.ckpt")


class Signalled(Callback):
    """Has the process get SIGTERM in one batch."""

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 1:
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("plugins", [None, AsyncCheckpointIO()])
def test_interruption_is_kept_and_removed(memory: Any, plugins: Any) -> None:
    def stopped(**flags: Any) -> Any:
        callbacks = [Signalled(), ModelCheckpoint("memory://runs")]
        trainer = quiet(
            callbacks=callbacks,
            enable_checkpointing=True,
            plugins=plugins,
            max_epochs=3,
        )
        with pytest.raises(SIGTERMException):
            trainer.fit(Small(), loader(), **flags)
        return trainer

    path = "memory://runs/interrupted-step=2.ckpt"
    assert stopped().interrupted_path == path
    assert verify(path) is None
    entry = read_manifest("memory://runs")["interrupted-step=2.ckpt"]
    assert (entry["role"], entry["step"]) == ("interrupted", 2)
    # The next interruption takes its place.
    assert stopped(ckpt_path="last").ckpt_path == path
    assert names(memory, "/runs") == [
        "epoch=0-step=4.ckpt",
        "interrupted-step=6.ckpt",
        "manifest.json",
    ]
    trainer = quiet(
        callbacks=[ModelCheckpoint("memory://runs")],
        enable_checkpointing=True,
        max_epochs=2,
    )
    trainer.fit(Small(), loader(), ckpt_path="last")
    assert trainer.global_step == 8
    assert "interrupted-step=6.ckpt" not in names(memory, "/runs")
    assert "interrupted-step=6.ckpt" not in read_manifest("memory://runs")


def test_last_behind_a_scheme_is_a_file_where_a_link_is_asked_for(memory: Any) -> None:
    fit([1.0, 2.0], ModelCheckpoint("memory://runs", save_last="link"))
    assert verify("memory://runs/last.ckpt") is None


def test_default_root_may_have_a_scheme(memory: Any) -> None:
    trainer = quiet(default_root_dir="memory://root", enable_checkpointing=True)
    trainer.fit(Small(), loader())
    assert names(memory, "/root/checkpoints")[0] == "epoch=0-step=4.ckpt"


def test_damaged_file_gives_way_to_the_newest_valid_one(memory: Any) -> None:
    fit([3.0, 2.0], ranked())
    content = bytearray(memory.cat("/runs/1/last.ckpt"))
    memory.pipe("/runs/1/last.ckpt", bytes(content[:900]))
    with pytest.raises(CheckpointFormatError, match=r"step=8\.ckpt"):
        TorchCheckpointIO().load_checkpoint("memory://runs/1/last.ckpt")
    with pytest.warns(UserWarning, match=r"last\.ckpt` is damaged.*step=8\.ckpt"):
        trainer = fit([3.0, 2.0, 1.0], ranked(), ckpt_path="last")
    assert trainer.global_step == 12


def test_upload_that_breaks_off_leaves_what_was_there(
    memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    io = TorchCheckpointIO()
    io.save_checkpoint({"state_dict": {}, "epoch": 1}, "memory://runs/x.ckpt")

    def break_off(self: Any, local: str, remote: str, **options: Any) -> None:
        self.pipe_file(remote, b"half")
        raise ConnectionError("the line is down")

    monkeypatch.setattr(type(memory), "put_file", break_off)
    with pytest.raises(CheckpointWriteError, match="the line is down"):
        io.save_checkpoint({"state_dict": {}, "epoch": 2}, "memory://runs/x.ckpt")
    assert io.load_checkpoint("memory://runs/x.ckpt")["epoch"] == 1
    assert names(memory, "/runs") == ["manifest.json", "x.ckpt"]
    callback = ModelCheckpoint("memory://runs", filename="y")
    with pytest.warns(UserWarning, match=".") as told:
        fit([1.0, 2.0], callback)
    assert "the line is down" in str(told[0].message)
    assert names(memory, "/runs") == ["manifest.json", "x.ckpt"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

    handler = partial(Quiet, directory=str(tmp_path))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_reading_over_http(server: str, tmp_path: Path) -> None:
    trainer = quiet()
    trainer.fit(Small(), loader())
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    loaded = Small.load_from_checkpoint(f"{server}/x.ckpt")
    assert torch.equal(loaded.layer.weight, trainer.model.layer.weight)
    assert verify(f"{server}/x.ckpt") is None
    resumed = quiet(max_epochs=2)
    resumed.fit(Small(), loader(), ckpt_path=f"{server}/x.ckpt")
    assert resumed.global_step == 8
    with pytest.raises(CheckpointNotFoundError, match=r"y\.ckpt"):
        Small.load_from_checkpoint(f"{server}/y.ckpt")
    with pytest.raises(CheckpointWriteError, match=r"x\.ckpt` cannot be written"):
        trainer.save_checkpoint(f"{server}/x.ckpt")


def test_damage_on_the_way_is_noticed(server: str, tmp_path: Path) -> None:
    weights = {"w": torch.arange(100.0)}
    TorchCheckpointIO().save_checkpoint({"state_dict": weights}, tmp_path / "x.ckpt")
    content = bytearray((tmp_path / "x.ckpt").read_bytes())
    content[content.index(weights["w"].numpy().tobytes()) + 50] ^= 1
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(CheckpointFormatError, match="damaged"):
        TorchCheckpointIO().load_checkpoint(f"{server}/x.ckpt")


def test_package_of_a_protocol_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: Any) -> Any:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(MissingDependencyError, match=r"Install s3fs.*`s3://`"):
        TorchCheckpointIO().load_checkpoint("s3://bucket/x.ckpt")


def test_unknown_scheme_is_named() -> None:
    with pytest.raises(MisconfigurationException, match="nothing here knows `abc://`"):
        TorchCheckpointIO().load_checkpoint("abc://bucket/x.ckpt")


@pytest.mark.parametrize(
    ("path", "folder", "name"),
    [
        ("memory://x.ckpt", "memory://", "x.ckpt"),
        ("s3://bucket/run/x.ckpt", "s3://bucket/run", "x.ckpt"),
        ("runs/x.ckpt", "runs", "x.ckpt"),
    ],
)
def test_paths_are_split_and_joined(path: str, folder: str, name: str) -> None:
    assert location.split(path) == (folder, name)
    assert location.join(folder, name) == path
    assert location.is_remote(path) is ("://" in path)


def test_drive_of_windows_is_no_scheme() -> None:
    assert not location.is_remote(r"C:\runs\x.ckpt")
    assert not location.is_remote("C:/runs/x.ckpt")
