"""Strategies of several processes on a CUDA device, in a group of one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from gpu_runs import on_gpu

pytestmark = on_gpu


def test_strategies_train_as_one_device_does(tmp_path: Path) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    ranks = {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("gpu_group.py"))],
        env={**os.environ, **ranks},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["backend"] in ("nccl", "cuda:nccl", "cpu:gloo,cuda:nccl")
    assert result["ddp"] < 1e-5, result
    assert result["fsdp"] < 1e-4, result
    assert result["ddp compiled"] < 1e-4, result
    assert result["fsdp compiled"] < 1e-4, result


def test_two_processes_on_one_card_are_told(tmp_path: Path) -> None:
    program = tmp_path / "two.py"
    program.write_text(
        "from gpu_runs import Classifier, loader, quiet\n"
        "quiet(devices='auto').fit(Classifier(), loader())\n"
    )
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    path = os.pathsep.join(
        [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    )
    done = subprocess.run(
        [sys.executable, *torchrun, str(program)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "0", "PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 1
    assert "2 processes have been started on this node" in done.stderr
    assert "see the same card" in done.stderr
