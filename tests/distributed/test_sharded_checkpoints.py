"""Checkpoints to which two processes write their parts, and what one makes of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import Results
from sharded_script import equal, net, state_of, trained

from lightgen_runtime.io import (
    DistributedCheckpointIO,
    TorchCheckpointIO,
    consolidate,
)

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what the processes have left, beside what one wrote before."""
    work = tmp_path_factory.mktemp("sharded")
    module = net(0)
    state = state_of(module, trained(module), 0)
    DistributedCheckpointIO().save_checkpoint(state, work / "one")
    script = str(HERE / "sharded_script.py")
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", script, str(rank), str(work)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in started:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    return work


@pytest.fixture(scope="module")
def found(folder: Path) -> Results:
    texts = [(folder / f"{rank}.json").read_text() for rank in range(2)]
    return [json.loads(text) for text in texts]


@pytest.mark.parametrize("name", ["sync", "async_1", "async_2"])
def test_one_process_reads_what_two_have_written(name: str, folder: Path) -> None:
    consolidate(folder / name, folder / f"{name}.ckpt")
    checkpoint = TorchCheckpointIO().load_checkpoint(folder / f"{name}.ckpt")
    expected = torch.load(folder / "expected.pt", weights_only=True)
    if name == "async_2":  # one was added in between, to parameters alone
        buffers = ("1.running_mean", "1.running_var", "1.num_batches_tracked")
        expected = {k: v if k in buffers else v + 1.0 for k, v in expected.items()}
    assert equal(checkpoint["state_dict"], expected)
    assert (checkpoint["own"], checkpoint["epoch"]) == (0, 3)  # the first process's
    fresh = net(5)
    fresh.load_state_dict(checkpoint["state_dict"])
    optimizer = torch.optim.Adam(fresh.parameters())
    optimizer.load_state_dict(checkpoint["optimizer_states"][0])


def test_each_process_writes_its_part(folder: Path) -> None:
    sizes = [(folder / "sync" / f"__{rank}_0.distcp").stat().st_size for rank in (0, 1)]
    assert min(sizes) > 5000


def test_two_processes_read_what_two_have_written(found: Results) -> None:
    assert [
        (each["written"]["sync"], each["written"]["async_1"]) for each in found
    ] == [(True, True)] * 2


def test_every_process_writes_in_a_thread_that_ends(found: Results) -> None:
    assert [each["written"]["threads"] for each in found] == [1, 1]


def test_two_processes_read_what_one_has_written(found: Results) -> None:
    for each in found:
        assert each["read"] == {"weights": True, "averages": [True] * 6}


def test_failure_of_one_process_is_raised_in_all(found: Results) -> None:
    expected: dict[str, Any] = {
        "OSError": "[Errno 28] No space left on device",
        "RuntimeError": "wires crossed",
        "kept": 1,
        "files": ["failed"],
    }
    assert [each["failed"] for each in found] == [expected] * 2
