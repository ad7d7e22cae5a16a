"""Processes that somebody else has started find each other and train as one."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from processes import found_in

pytestmark = pytest.mark.slow

MAIN = str(Path(__file__).parent / "launched_main.py")


# By name: what a launcher sets, and what the trainer is given.
Cases = dict[str, tuple[dict[str, str], dict[str, Any]]]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of what two processes find, each of them as a rank of each."""
    folder = tmp_path_factory.mktemp("started")
    port = free_port()
    start_two(
        folder,
        lambda rank: {
            "srun": (srun(rank), {}),
            "mpirun": (mpirun(rank), {}),
            "pods": (pod(rank, port), {"num_nodes": 2}),
        },
    )
    return folder


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def start_two(
    folder: Path,
    cases: Callable[[int], Cases],
    before: Callable[[int], list[str]] = lambda rank: [],
) -> None:
    def start(rank: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, MAIN, str(folder), json.dumps(cases(rank))]
        return subprocess.run(
            [*before(rank), *command],
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    with ThreadPoolExecutor(2) as both:
        for done in both.map(start, range(2)):
            assert done.returncode == 0, done.stderr


def srun(rank: int) -> dict[str, str]:
    return {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NAME": "train",
        "SLURM_STEP_ID": "0",
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
        "SLURM_NODEID": "0",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_JOB_NODELIST": "localhost",
    }


def mpirun(rank: int) -> dict[str, str]:
    return {
        "OMPI_COMM_WORLD_RANK": str(rank),
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_LOCAL_RANK": str(rank),
        "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
        "PMIX_NAMESPACE": f"prterun-{os.getpid()}",
    }


def pod(rank: int, port: str) -> dict[str, str]:
    where = {"MASTER_ADDR": "localhost", "MASTER_PORT": port}
    return {**where, "WORLD_SIZE": "2", "RANK": str(rank)}


@pytest.mark.parametrize(
    ("launcher", "environment"),
    [
        ("srun", "SLURMEnvironment"),
        ("mpirun", "MPIEnvironment"),
        ("pods", "KubeflowEnvironment"),
    ],
)
def test_processes_of_a_launcher_train_as_those_that_a_program_starts(
    launcher: str, environment: str, started: Path, own: dict[str, Any]
) -> None:
    found = found_in(started / launcher)
    assert [each["world"] for each in found] == [2, 2]
    for each in found:
        assert each["environment"] == environment
        assert each["weights"] == own["weights"]  # to the bit
        assert each["loss"] == own["loss"]
    assert found[0]["seen"] == own["seen"]
    assert not {*found[0]["seen"]} & {*found[1]["seen"]}


@pytest.fixture
def hosts() -> Any:
    """Return the command of each of two hosts: network namespaces with a cable."""
    names = [f"lg{os.getpid()}{letter}" for letter in "ab"]
    if shutil.which("ip") is None or os.name == "nt":
        pytest.skip("needs `ip netns`")

    def ip(*words: str) -> bool:
        return subprocess.run(["ip", *words], capture_output=True).returncode == 0

    try:
        made = all(ip("netns", "add", name) for name in names)
        cable = ("link", "add", "e0", "netns", names[0], "type", "veth")
        if not (made and ip(*cable, "peer", "name", "e0", "netns", names[1])):
            pytest.skip("may not make network namespaces")
        for number, name in enumerate(names, start=1):
            assert ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "e0")
            assert ip("-n", name, "link", "set", "e0", "up")
            assert ip("-n", name, "link", "set", "lo", "up")
        yield [["ip", "netns", "exec", name] for name in names]
    finally:
        for name in names:
            ip("netns", "del", name)


def test_two_hosts_that_start_their_own_processes(
    hosts: list[list[str]], tmp_path: Path
) -> None:
    """Each host starts two processes; nothing but the cable is between them."""
    where = {"MASTER_ADDR": "10.77.0.1", "MASTER_PORT": "29511"}
    flags = {"devices": 2, "num_nodes": 2}

    def cases(rank: int) -> Cases:
        variables = {**where, "NODE_RANK": str(rank), "GLOO_SOCKET_IFNAME": "e0"}
        return {"hosts": (variables, flags)}

    start_two(tmp_path, cases, lambda rank: hosts[rank])
    found = found_in(tmp_path / "hosts")
    assert [each["world"] for each in found] == [4] * 4
    assert len({json.dumps(each["weights"]) for each in found}) == 1
    seen = [number for each in found for number in each["seen"]]
    assert sorted(seen) == list(range(12))
