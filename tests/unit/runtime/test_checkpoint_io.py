"""Checkpoint files: all or nothing when written, data only when read."""

import collections
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from lightgen_runtime.io import TorchCheckpointIO
from lightgen_runtime.utilities import atomic_write as atomic_write_module
from lightgen_runtime.utilities.exceptions import (
    CheckpointFormatError,
    CheckpointNotFoundError,
)


@pytest.fixture
def checkpoint():
    return {
        "epoch": 3,
        "state_dict": collections.OrderedDict(weight=torch.arange(64.0)),
        "hyper_parameters": {"lr": 0.1, "sizes": (1, 2)},
    }


@pytest.fixture
def path(tmp_path, checkpoint):
    path = tmp_path / "epoch=0-step=10.ckpt"
    TorchCheckpointIO().save_checkpoint(checkpoint, path)
    return path


def names_in(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_save_then_load_returns_the_same(path, checkpoint):
    loaded = TorchCheckpointIO().load_checkpoint(path)
    assert loaded["epoch"] == 3
    assert loaded["hyper_parameters"] == {"lr": 0.1, "sizes": (1, 2)}
    assert torch.equal(loaded["state_dict"]["weight"], torch.arange(64.0))


def test_save_makes_missing_folders(tmp_path, checkpoint):
    TorchCheckpointIO().save_checkpoint(checkpoint, tmp_path / "a" / "b" / "c.ckpt")
    assert names_in(tmp_path / "a" / "b") == ["c.ckpt", "manifest.json"]


def test_save_gives_the_permissions_of_any_new_file(path):
    plain = path.with_name("plain")
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode


class Unpicklable:
    def __reduce__(self):
        raise ValueError("cannot be stored")


def test_save_that_fails_keeps_the_old_file_and_leaves_nothing(path):
    before = path.read_bytes()
    with pytest.raises(ValueError, match="cannot be stored"):
        TorchCheckpointIO().save_checkpoint(
            {"state_dict": {"w": torch.ones(10)}, "bad": Unpicklable()}, path
        )
    assert path.read_bytes() == before
    assert names_in(path.parent) == [path.name, "manifest.json"]


def test_save_that_cannot_sync_keeps_the_old_file(path, monkeypatch, checkpoint):
    def fail(descriptor):
        raise OSError(28, "No space left on device")

    before = path.read_bytes()
    monkeypatch.setattr(atomic_write_module.os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        TorchCheckpointIO().save_checkpoint({**checkpoint, "epoch": 4}, path)
    assert path.read_bytes() == before
    assert names_in(path.parent) == [path.name, "manifest.json"]


def test_save_syncs_the_file_before_it_takes_the_name(
    tmp_path, monkeypatch, checkpoint
):
    events = []
    path = tmp_path / "a.ckpt"
    monkeypatch.setattr(
        atomic_write_module.os,
        "fsync",
        lambda descriptor: events.append(names_in(tmp_path)[-1]),
    )
    TorchCheckpointIO().save_checkpoint(checkpoint, path)
    # The file while the name is still free, then the folder that holds the name; and the
    # same for the manifest.
    assert events[0].endswith(".tmp")
    assert events[1:] == ["a.ckpt", "a.ckpt", "manifest.json"]


@pytest.mark.skipif(os.name == "nt", reason="no file size limits there")
def test_save_on_a_full_disk_keeps_the_old_file(path):
    before = path.read_bytes()
    program = """
        import resource, signal, sys, torch
        from lightgen_runtime.io import TorchCheckpointIO
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            TorchCheckpointIO().save_checkpoint(
                {"state_dict": {"w": torch.ones(100_000)}}, sys.argv[1]
            )
        except (OSError, RuntimeError):
            sys.exit(7)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert result.returncode == 7
    assert path.read_bytes() == before
    assert names_in(path.parent) == [path.name, "manifest.json"]


def test_load_of_a_missing_file_lists_what_is_there(path):
    with pytest.raises(CheckpointNotFoundError) as caught:
        TorchCheckpointIO().load_checkpoint(path.with_name("epoch=0-step=11.ckpt"))
    assert "Nearest name: `epoch=0-step=10.ckpt`" in str(caught.value)
    assert isinstance(caught.value, FileNotFoundError)


def test_load_of_a_folder_lists_what_is_in_it(path):
    with pytest.raises(CheckpointNotFoundError, match=r"is a folder.*step=10\.ckpt"):
        TorchCheckpointIO().load_checkpoint(path.parent)


def test_load_from_a_missing_folder_says_so(tmp_path):
    with pytest.raises(CheckpointNotFoundError, match="does not exist either"):
        TorchCheckpointIO().load_checkpoint(tmp_path / "no" / "a.ckpt")


def test_load_of_an_empty_file_says_so(tmp_path):
    path = tmp_path / "a.ckpt"
    path.touch()
    with pytest.raises(CheckpointFormatError, match="is empty"):
        TorchCheckpointIO().load_checkpoint(path)


@pytest.mark.parametrize("kept", [1, 10, 300, 0.5, 0.9, -1])
def test_load_of_a_truncated_file_is_a_format_error(path, kept):
    content = path.read_bytes()
    size = int(len(content) * kept) if isinstance(kept, float) else kept
    path.write_bytes(content[:size])
    found = "it is truncated" if kept != 1 else "not a PyTorch file"
    with pytest.raises(CheckpointFormatError, match=found):
        TorchCheckpointIO().load_checkpoint(path)


def test_load_notices_a_single_flipped_bit_in_a_weight(path):
    content = bytearray(path.read_bytes())
    position = content.index(torch.arange(64.0).numpy().tobytes())
    content[position + 101] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointFormatError, match=r"its part `.*` is damaged"):
        TorchCheckpointIO().load_checkpoint(path)


def test_load_of_a_text_file_is_a_format_error(tmp_path):
    path = tmp_path / "notes.ckpt"
    path.write_text("this is not a checkpoint\n")
    with pytest.raises(CheckpointFormatError, match="not a PyTorch file"):
        TorchCheckpointIO().load_checkpoint(path)


def test_load_names_objects_that_are_not_data_and_runs_nothing(tmp_path):
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": {}, "folder": Path("x"), "go": Explosive()}, path)
    with pytest.raises(CheckpointFormatError) as caught:
        TorchCheckpointIO().load_checkpoint(path)
    assert "pathlib.PosixPath" in str(caught.value) or "Windows" in str(caught.value)
    assert "explode" in str(caught.value)
    assert "add_safe_globals" in str(caught.value)
    assert not EXPLOSIONS


EXPLOSIONS = []


def explode():
    EXPLOSIONS.append(1)


class Explosive:
    def __reduce__(self):
        return explode, ()


@pytest.mark.parametrize(
    ("content", "found"), [(torch.ones(2), "Tensor"), ({"weights": 1}, "weights")]
)
def test_load_of_something_else_says_what_it_is(tmp_path, content, found):
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointFormatError, match=f"{found}.*`state_dict` is needed"):
        TorchCheckpointIO().load_checkpoint(tmp_path / "a.ckpt")


def test_remove_deletes_and_forgives(path):
    TorchCheckpointIO().remove_checkpoint(path)
    assert not path.exists()
    TorchCheckpointIO().remove_checkpoint(path)
