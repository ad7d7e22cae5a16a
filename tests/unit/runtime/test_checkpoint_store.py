"""The manifest of a folder of checkpoints: what it says, and that it follows the files."""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from lightgen_runtime.io import TorchCheckpointIO
from lightgen_runtime.io.store import (
    entry_of,
    list_file,
    newest_valid,
    read_manifest,
    reconcile,
    verify,
)
from lightgen_runtime.utilities.exceptions import CheckpointNotFoundError

RECORD = {"kept_by": "Keeper", "score": 0.25, "role": "best", "run": "r"}


def checkpoint(step: int, **others: Any) -> dict[str, Any]:
    return {
        "epoch": step // 4,
        "global_step": step,
        "state_dict": {"w": torch.full((200,), float(step))},
        "optimizer_states": [{"state": {}, "param_groups": [{}, {}]}],
        "lr_schedulers": [{}],
        "lightgen": {"format": 2, "record": RECORD},
        **others,
    }


def save(path: Path, step: int = 8, **others: Any) -> Path:
    TorchCheckpointIO().save_checkpoint(checkpoint(step, **others), path)
    return path


def test_numbers_of_another_kind_are_no_obstacle(tmp_path: Path) -> None:
    path = save(tmp_path / "x.ckpt", epoch=torch.tensor(3), global_step="nine")
    entry = read_manifest(tmp_path)[path.name]
    assert (entry["epoch"], entry["step"]) == (None, None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for step in (4, 8, 12):
        save(tmp_path / f"{step}.ckpt", step)
    return tmp_path


def rewrite(path: Path, change: Any) -> None:
    """Change bytes of a file behind the system's back: its times stay."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def flip_weight(content: bytearray) -> None:
    position = content.index(torch.full((200,), 12.0).numpy().tobytes())
    content[position + 100] ^= 1


def flip_padding(content: bytearray) -> None:
    content[content.index(b"ZZZZ")] ^= 1


def test_entry_says_what_is_in_the_file(folder: Path) -> None:
    content = json.loads((folder / "manifest.json").read_text())
    assert content["format"] == 1
    assert list(content["checkpoints"]) == ["4.ckpt", "8.ckpt", "12.ckpt"]
    entry = content["checkpoints"]["8.ckpt"]
    assert entry.pop("bytes") == (folder / "8.ckpt").stat().st_size
    assert len(entry.pop("sha256")) == 64
    assert entry.pop("saved_at").endswith("+00:00")
    assert entry == {
        "epoch": 2,
        "step": 8,
        "weights_only": False,
        "optimizers": [{"class": None, "groups": 2}],
        "schedulers": [None],
        **RECORD,
    }


def test_classes_are_those_that_the_checkpoint_names(tmp_path: Path) -> None:
    own = {"optimizers": [{"class": "AdamW"}], "schedulers": [{"class": "StepLR"}]}
    entry = entry_of(checkpoint(4, lightgen=own), save(tmp_path / "a.ckpt"))
    assert entry["optimizers"] == [{"class": "AdamW", "groups": 2}]
    assert entry["schedulers"] == ["StepLR"]
    assert entry["kept_by"] is None


def test_infinite_score_is_valid_json(tmp_path: Path) -> None:
    own = {"record": RECORD | {"score": float("inf")}}
    save(tmp_path / "a.ckpt", lightgen=own)

    def refuse(name: str) -> None:
        raise AssertionError(name)

    text = (tmp_path / "manifest.json").read_text()
    entries = json.loads(text, parse_constant=refuse)["checkpoints"]
    assert float(entries["a.ckpt"]["score"]) == float("inf")


def test_manifest_is_made_again_from_the_files(folder: Path) -> None:
    before = read_manifest(folder)
    (folder / "manifest.json").unlink()
    (folder / "notes.ckpt").write_text("not a checkpoint")
    found = reconcile(folder)
    assert found == {n: e | {"sha256": None} for n, e in before.items()}
    assert read_manifest(folder) == found


def test_file_put_there_by_hand_is_adopted_and_a_missing_one_forgotten(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = save(tmp_path_factory.mktemp("other") / "20.ckpt", 20)
    shutil.copy2(elsewhere, folder / "20.ckpt")
    (folder / "4.ckpt").unlink()
    assert set(reconcile(folder)) == {"8.ckpt", "12.ckpt", "20.ckpt"}
    assert set(read_manifest(folder)) == {"8.ckpt", "12.ckpt", "20.ckpt"}


def test_file_replaced_without_an_entry_is_read_again(folder: Path) -> None:
    # As a kill between the two leaves it.
    stale = read_manifest(folder)["8.ckpt"]
    save(folder / "8.ckpt", 16)
    list_file(folder / "8.ckpt", stale)
    assert verify(folder / "8.ckpt") is None
    assert newest_valid(folder) == str(folder / "8.ckpt")
    assert reconcile(folder)["8.ckpt"]["step"] == 16


def test_copied_folder_is_still_what_was_listed(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in sorted(folder.glob("*.*"), reverse=True):
        shutil.copy(path, copy)  # with new times, the newest first
    assert reconcile(copy) == dict(read_manifest(folder))
    assert newest_valid(copy) == str(copy / "12.ckpt")


@pytest.mark.parametrize("content", ["", '{"format": 1, "checkp', '{"format": 1}'])
def test_damaged_manifest_is_made_again(folder: Path, content: str) -> None:
    (folder / "manifest.json").write_text(content)
    assert set(reconcile(folder)) == {"4.ckpt", "8.ckpt", "12.ckpt"}
    assert set(read_manifest(folder)) == {"4.ckpt", "8.ckpt", "12.ckpt"}


def test_entry_without_its_parts_is_made_again(folder: Path) -> None:
    list_file(folder / "8.ckpt", {"step": 8})
    assert reconcile(folder)["8.ckpt"]["kept_by"] == "Keeper"


@pytest.mark.parametrize("content", ['{"name": "app"}', '{"format": 9}', "[1]"])
def test_manifest_of_somebody_else_is_left_alone(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.warns(UserWarning, match="stays as it is"):
        path = save(tmp_path / "a.ckpt")
    assert (tmp_path / "manifest.json").read_text() == content
    assert verify(path) is None
    with pytest.warns(UserWarning, match="stays as it is"):
        assert newest_valid(tmp_path) == str(path)


def test_last_entry_takes_the_manifest_along(tmp_path: Path) -> None:
    TorchCheckpointIO().remove_checkpoint(save(tmp_path / "a.ckpt"))
    assert list(tmp_path.iterdir()) == []


def test_concurrent_writers_lose_no_entry(tmp_path: Path) -> None:
    def write(writer: int) -> None:
        for step in range(8):
            save(tmp_path / f"{writer}-{step}.ckpt", step)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert len(read_manifest(tmp_path)) == 32
    assert len(list(tmp_path.iterdir())) == 33


def test_manifest_that_cannot_be_written_costs_no_checkpoint(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    before = read_manifest(folder)
    with monkeypatch.context() as patch:
        patch.setattr("lightgen_runtime.io.store._change", refuse)
        with pytest.warns(UserWarning, match="behind the files.*No space left"):
            save(folder / "16.ckpt", 16)
        with pytest.warns(UserWarning, match="behind the files.*No space left"):
            TorchCheckpointIO().remove_checkpoint(folder / "4.ckpt")
    assert read_manifest(folder) == before
    assert newest_valid(folder) == str(folder / "16.ckpt")
    assert set(read_manifest(folder)) == {"8.ckpt", "12.ckpt", "16.ckpt"}


def test_sound_files_have_nothing_wrong(folder: Path) -> None:
    assert [verify(path) for path in folder.glob("*.ckpt")] == [None] * 3
    with pytest.raises(CheckpointNotFoundError, match="no checkpoint at"):
        verify(folder / "none.ckpt")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (flip_weight, "its part `archive/data/0` is damaged"),
        (lambda content: content.clear(), "it is empty"),
        (lambda content: content.__delitem__(slice(900, None)), "it has 900 of "),
        (flip_padding, "its content is not what `manifest.json` says"),
    ],
)
def test_damage_is_named_and_the_one_before_is_taken(
    folder: Path, change: Any, problem: str
) -> None:
    rewrite(folder / "12.ckpt", change)
    assert problem in (verify(folder / "12.ckpt") or "")
    assert newest_valid(folder) == str(folder / "8.ckpt")
    # Its entry stays: whose file it is must not be forgotten.
    assert read_manifest(folder)["12.ckpt"]["kept_by"] == "Keeper"


def test_damage_in_a_file_that_nobody_lists(folder: Path) -> None:
    rewrite(folder / "12.ckpt", lambda content: content.__delitem__(slice(900, None)))
    (folder / "manifest.json").unlink()
    assert "truncated, damaged or not a checkpoint" in (
        verify(folder / "12.ckpt") or ""
    )
    assert newest_valid(folder) == str(folder / "8.ckpt")


def test_files_of_weights_alone_are_taken_only_where_that_is_enough(
    folder: Path,
) -> None:
    content = checkpoint(16)
    del content["optimizer_states"], content["lr_schedulers"]
    TorchCheckpointIO().save_checkpoint(content, folder / "16.ckpt")
    assert newest_valid(folder) == str(folder / "12.ckpt")
    assert newest_valid(folder, weights_only=True) == str(folder / "16.ckpt")
    assert newest_valid(folder, but=["12.ckpt"]) == str(folder / "8.ckpt")


def test_nothing_valid_is_none(tmp_path: Path) -> None:
    assert newest_valid(tmp_path) is None
    assert newest_valid(tmp_path / "missing") is None
