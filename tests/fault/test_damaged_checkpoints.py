"""Files that a disk, a network or a user has damaged: refused, or the same data."""

from __future__ import annotations

import os
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from lightgen_runtime.io import TorchCheckpointIO
from lightgen_runtime.io.store import newest_valid, verify
from lightgen_runtime.utilities.exceptions import (
    CheckpointFormatError,
    CheckpointNotFoundError,
)

SHARE = 1 if os.environ.get("LIGHTGEN_SOAK") else 20


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    io = TorchCheckpointIO()
    io.save_checkpoint(checkpoint(1), tmp_path / "before.ckpt")
    io.save_checkpoint(checkpoint(2), tmp_path / "x.ckpt")
    return tmp_path / "x.ckpt"


def checkpoint(seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "epoch": seed,
        "global_step": seed,
        "state_dict": {
            "w": torch.randn(40, generator=generator),
            "b": torch.randn(3, generator=generator).half(),
        },
        "optimizer_states": [{"state": {}, "param_groups": [{"lr": 0.1}]}],
    }


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other) and one.dtype == other.dtype
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def outcome(path: Path, expected: Any) -> str:
    """Load a file; return "refused" or "equal", and fail for anything else."""
    message = ""
    try:
        loaded = TorchCheckpointIO().load_checkpoint(path)
    except CheckpointFormatError as error:
        message = str(error)
    if not message:
        assert equal(loaded, expected)
        return "equal"
    assert path.name in message
    if "cannot be read" in message:
        assert "before.ckpt" in message, "it names the one to use instead"
    assert verify(path) is not None
    return "refused"


def test_no_truncated_file_is_loaded(saved: Path) -> None:
    content = saved.read_bytes()
    lengths = range(0, len(content), SHARE)
    for length in [*lengths, len(content) - 1]:
        saved.write_bytes(content[:length])
        assert outcome(saved, None) == "refused", length
    assert newest_valid(saved.parent) == str(saved.with_name("before.ckpt"))


def test_no_flipped_bit_gives_other_data(saved: Path) -> None:
    content, expected = saved.read_bytes(), checkpoint(2)
    drawn = random.Random(0)
    refused = 0
    positions = range(0, len(content), SHARE)
    for position in positions:
        damaged = bytearray(content)
        damaged[position] ^= 1 << drawn.randrange(8)
        saved.write_bytes(damaged)
        refused += outcome(saved, expected) == "refused"
    # Much of a small file is padding, where nothing is lost.
    assert refused > len(positions) // 4


def test_every_bit_of_the_weights_counts(saved: Path) -> None:
    content = saved.read_bytes()
    weights = checkpoint(2)["state_dict"]["w"].numpy().tobytes()
    start = content.index(weights)
    for position in range(start, start + len(weights)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        saved.write_bytes(damaged)
        assert outcome(saved, None) == "refused", position


def test_blocks_of_zeros_are_refused(saved: Path) -> None:
    # What a file system makes of blocks that were never written.
    content = saved.read_bytes()
    for start in range(0, len(content), 512):
        damaged = bytearray(content)
        damaged[start : start + 512] = bytes(len(damaged[start : start + 512]))
        saved.write_bytes(damaged)
        outcome(saved, checkpoint(2))


def foreign_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("not a checkpoint"),
        lambda path: path.write_bytes(bytes(5000)),
        lambda path: path.write_bytes(random.Random(0).randbytes(5000)),
        foreign_zip,
        lambda path: torch.save(torch.ones(3), path),
        lambda path: torch.save({"weights": 1}, path),
        lambda path: torch.jit.save(torch.jit.script(torch.nn.ReLU()), path),
    ],
    ids=[
        "empty",
        "text",
        "zeros",
        "noise",
        "zip",
        "tensor",
        "other_keys",
        "torchscript",
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_foreign_file_is_refused_and_passed_over(make: Any, saved: Path) -> None:
    saved.unlink()
    make(saved)
    assert outcome(saved, None) == "refused"
    assert newest_valid(saved.parent) == str(saved.with_name("before.ckpt"))


def test_file_with_more_than_data_is_passed_over(saved: Path) -> None:
    torch.save({"state_dict": {}, "x": Path("x")}, saved)
    with pytest.raises(CheckpointFormatError, match="not plain data"):
        TorchCheckpointIO().load_checkpoint(saved)
    assert newest_valid(saved.parent) == str(saved.with_name("before.ckpt"))


def test_file_of_torch_without_the_zip_format_loads(saved: Path) -> None:
    torch.save(checkpoint(2), saved, _use_new_zipfile_serialization=False)
    assert outcome(saved, checkpoint(2)) == "equal"
    assert verify(saved) is None
    assert newest_valid(saved.parent) == str(saved)
    content = saved.read_bytes()
    saved.write_bytes(content[: len(content) // 2])
    assert outcome(saved, None) == "refused"


def test_folder_and_missing_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").mkdir()
    for path in (tmp_path / "x.ckpt", tmp_path / "y.ckpt"):
        with pytest.raises(CheckpointNotFoundError, match=path.name):
            TorchCheckpointIO().load_checkpoint(path)
