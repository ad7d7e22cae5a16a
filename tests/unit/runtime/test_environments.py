"""By whom a process was started, told from its environment variables alone."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
import torch

from lightgen_runtime import Trainer
from lightgen_runtime.plugins.environments import (
    ClusterEnvironment,
    KubeflowEnvironment,
    LightningEnvironment,
    LSFEnvironment,
    MPIEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightgen_runtime.strategies import DDPStrategy, environments, parallel
from lightgen_runtime.strategies.environments.detection import (
    STARTER,
    choose_environment,
)
from lightgen_runtime.strategies.environments.slurm import tasks_on_node
from lightgen_runtime.strategies.ranks import Ranks, ranks_from_environment
from lightgen_runtime.trainer import slurm
from lightgen_runtime.utilities.exceptions import MisconfigurationException

TORCHRUN = Ranks(3, 1, 1, 4, 2).environment()
SRUN = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NAME": "train",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_NTASKS": "4",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_JOB_NODELIST": "gpu[003-004]",
}
JSRUN = {
    "LSB_JOBID": "52",
    "LSB_MCPU_HOSTS": "launch 1 a01 42 a02 42",
    "JSM_NAMESPACE_RANK": "3",
    "JSM_NAMESPACE_SIZE": "4",
    "JSM_NAMESPACE_LOCAL_RANK": "1",
    "JSM_NAMESPACE_LOCAL_SIZE": "2",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "PMIX_NAMESPACE": "prterun-a-1",
    "MASTER_ADDR": "head",
}
MPICH = {
    "PMI_RANK": "3",
    "PMI_SIZE": "4",
    "MPI_LOCALRANKID": "1",
    "MPI_LOCALNRANKS": "2",
    "MASTER_ADDR": "head",
}
PODS = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "MASTER_ADDR": "job-master-0",
    "MASTER_PORT": "23456",
}
BY_HAND = {
    "LOCAL_RANK": "1",
    "NODE_RANK": "1",
    "MASTER_ADDR": "head",
    "MASTER_PORT": "5000",
}
KNOWN = ("SLURM_", "LSB_", "JSM_", "OMPI_", "PMI", "MPI_", "MASTER_", "PBS_")


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process have been started by nobody that it knows of."""
    for name in list(os.environ):
        if name.startswith(KNOWN) or name in {*TORCHRUN, "NODE_RANK", STARTER}:
            monkeypatch.delenv(name)


def start(monkeypatch: pytest.MonkeyPatch, *variables: dict[str, str]) -> None:
    for each in variables:
        for name, value in each.items():
            monkeypatch.setenv(name, value)


def quiet(**flags: Any) -> Trainer:
    return Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **flags)


FOURTH = (3, 1, 1, 4, 2)  # of four processes on two nodes
STARTED: list[tuple[tuple[dict[str, str], ...], type, tuple[int, ...], str, int]] = [
    (
        (TORCHRUN, {"MASTER_ADDR": "head", "MASTER_PORT": "5"}),
        TorchElasticEnvironment,
        FOURTH,
        "head",
        5,
    ),
    ((SRUN,), SLURMEnvironment, FOURTH, "gpu003", 19711),
    ((SRUN, {"SLURM_JOB_ID": "4712"}), SLURMEnvironment, FOURTH, "gpu003", 19712),
    # A step on the second node only, beside others of the job.
    (
        (SRUN, {"SLURM_STEP_ID": "1", "SLURM_STEP_NODELIST": "gpu004"}),
        SLURMEnvironment,
        FOURTH,
        "gpu004",
        20720,
    ),
    (
        (SRUN, {"MASTER_ADDR": "head", "MASTER_PORT": "5"}),
        SLURMEnvironment,
        FOURTH,
        "head",
        5,
    ),
    ((JSRUN,), LSFEnvironment, FOURTH, "a01", 15052),
    ((OPEN_MPI,), MPIEnvironment, FOURTH, "head", 24895),
    ((MPICH,), MPIEnvironment, FOURTH, "head", 29500),
    ((PODS,), KubeflowEnvironment, (3, 0, 3, 4, 1), "job-master-0", 23456),
    # Who stands nearer to the process goes first.
    (
        (SRUN, OPEN_MPI, PODS, TORCHRUN),
        TorchElasticEnvironment,
        FOURTH,
        "job-master-0",
        23456,
    ),
    ((SRUN, {"SLURM_PROCID": "0"}, OPEN_MPI), MPIEnvironment, FOURTH, "head", 24895),
    ((JSRUN, OPEN_MPI), LSFEnvironment, FOURTH, "head", 15052),
    # What `srun --mpi=pmi2` sets does not make it an `mpirun`.
    (
        (SRUN, {"PMI_RANK": "3", "PMI_SIZE": "4"}),
        SLURMEnvironment,
        FOURTH,
        "gpu003",
        19711,
    ),
]


@pytest.mark.parametrize(("variables", "kind", "ranks", "address", "port"), STARTED)
def test_started_processes_know_who_they_are(
    variables: tuple[dict[str, str], ...],
    kind: type,
    ranks: tuple[int, ...],
    address: str,
    port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start(monkeypatch, *variables)
    environment = choose_environment()
    assert type(environment) is kind
    assert environment.creates_processes_externally
    found = ranks_from_environment()
    assert found is not None
    assert astuple(found) == ranks
    assert (environment.main_address, environment.main_port) == (address, port)
    here = ranks[4]
    trainer = quiet(num_nodes=4 // here)  # devices="auto": as many as there are
    assert (trainer.world_size, trainer.global_rank) == (4, 3)
    assert (trainer.local_rank, trainer.node_rank) == ranks[1:3]
    assert trainer.num_devices == here


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"RANK": "x", "LOCAL_RANK": "0", "WORLD_SIZE": "2"},
        {**SRUN, "SLURM_JOB_NAME": "bash"},
        {**SRUN, "SLURM_JOB_NAME": "interactive"},
        # A batch script's own process, in two generations of SLURM.
        {name: value for name, value in SRUN.items() if name != "SLURM_STEP_ID"},
        {**SRUN, "SLURM_STEP_ID": "4294967291"},
        # A task that is alone may start the others itself.
        {**SRUN, "SLURM_PROCID": "0", "SLURM_NTASKS": "1"},
        {"SLURM_JOB_ID": "5"},
        {"LSB_JOBID": "5"},
        {"PMI_RANK": "0", "PMI_SIZE": "2"},
        {"MASTER_ADDR": "head", "MASTER_PORT": "5"},
        {"LOCAL_RANK": "1"},  # which tells nobody where to meet
    ],
)
def test_others_are_ranks_of_nobody(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    start(monkeypatch, variables)
    monkeypatch.setattr(environments.slurm, "has_terminal", lambda: True)
    assert type(choose_environment()) is LightningEnvironment
    assert ranks_from_environment() is None
    assert quiet().world_size == 1
    assert quiet(devices=2).world_size == 2


def test_tasks_of_srun_in_an_interactive_session_are_ranks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start(monkeypatch, SRUN, {"SLURM_JOB_NAME": "interactive"})  # that of `salloc`
    monkeypatch.setattr(environments.slurm, "has_terminal", lambda: False)
    assert type(choose_environment()) is SLURMEnvironment
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)  # as in a notebook
    assert type(choose_environment()) is LightningEnvironment


@pytest.mark.skipif(not hasattr(os, "setsid"), reason="needs sessions")
def test_terminal_is_found_whatever_the_streams_are() -> None:
    asks = (
        "import os, sys; from lightgen_runtime.strategies.environments import slurm\n"
        "for stream in range(2): os.dup2(os.open(os.devnull, os.O_RDWR), stream)\n"
        "sys.exit(7 if slurm.has_terminal() else 0)"
    )
    in_terminal = (
        f"import pty, sys; status = pty.spawn([sys.executable, '-c', {asks!r}])\n"
        "sys.exit(status >> 8)"
    )
    codes = [
        subprocess.run(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            check=False,
        ).returncode
        for code in (in_terminal, asks)
    ]
    assert codes == [7, 0]


def test_processes_that_a_program_has_started_are_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start(monkeypatch, SRUN, TORCHRUN, {STARTER: "1"})
    for given in (None, SLURMEnvironment(), LightningEnvironment()):
        assert type(choose_environment(given)) is TorchElasticEnvironment


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node[003-005,9]", "node003"),
        ("a-b[01-02]-c", "a-b01-c"),
        ("a-b[7,9-11]-c,d", "a-b7-c"),
        ("alpha,beta,gamma", "alpha"),
        ("alpha beta gamma", "alpha"),
        ("x[1-2]y[03-04]", "x1y03"),
        ("1.2.3.4", "1.2.3.4"),
        ("cn-001.site.org,cn-002.site.org", "cn-001.site.org"),
        ("localhost", "localhost"),
    ],
)
def test_first_host_of_a_list(nodes: str, first: str) -> None:
    assert SLURMEnvironment.resolve_root_node_address(nodes) == first


@pytest.mark.parametrize(
    ("counts", "each"),
    [("2", [2, 2, 2]), ("4(x2),3", [4, 4, 3]), ("1,2,3", [1, 2, 3]), ("", [None])],
)
def test_tasks_of_each_node(counts: str, each: list[int | None]) -> None:
    assert [tasks_on_node(counts, node) for node in range(len(each))] == each


MISMATCHES: list[tuple[dict[str, str], dict[str, int], list[str]]] = [
    (
        SRUN,
        {"devices": 1},
        [
            "1 x 1 = 1 process(es), and 4 have been started (2 a node) by SLURM",
            *("SLURM_NTASKS=4", "SLURM_NTASKS_PER_NODE=2"),
            *("Trainer(devices=2, num_nodes=2)", "srun --nodes=1 --ntasks-per-node=1"),
            "strategy='single_device'",
        ],
    ),
    (SRUN, {"devices": 4, "num_nodes": 1}, ["4 x 1 = 4", "2 a node"]),
    (JSRUN, {"devices": 3}, ["JSM_NAMESPACE_SIZE=4", "jsrun --nrs 1"]),
    (OPEN_MPI, {"devices": 3}, ["by mpirun (OMPI_COMM_WORLD_RANK=3", "2 a node"]),
    (
        PODS,
        {"devices": 2, "num_nodes": 4},
        [
            *("2 x 4 = 8", "4 have been started (1 a node) by Kubeflow"),
            *("MASTER_ADDR=job-master-0", "Trainer(devices=1, num_nodes=4)"),
            "torchrun --nnodes 4 --nproc-per-node 2",
        ],
    ),
    (TORCHRUN, {"devices": 2}, ["2 x 1 = 2", "torchrun (RANK=3", "WORLD_SIZE=4"]),
]


@pytest.mark.parametrize(("variables", "flags", "parts"), MISMATCHES)
def test_numbers_that_disagree_are_shown_with_their_source(
    variables: dict[str, str],
    flags: dict[str, int],
    parts: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start(monkeypatch, variables)
    for strategy in ("auto", "ddp"):
        with pytest.raises(MisconfigurationException) as caught:
            quiet(strategy=strategy, **flags)
        for part in parts:
            assert part in str(caught.value)


def test_independent_tasks_stay_alone_where_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start(monkeypatch, SRUN)
    assert quiet(devices=1, strategy="single_device").world_size == 1
    assert quiet(devices=1, plugins=LightningEnvironment()).world_size == 1


def test_several_nodes_need_somebody_to_start_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(MisconfigurationException) as caught:
        quiet(devices=2, num_nodes=2)
    text = str(caught.value)
    for part in (
        "lightgen train --nodes 2 --devices 2",
        "torchrun --nnodes 2 --nproc-per-node 2",
        "srun --nodes=2 --ntasks-per-node=2",
        "MASTER_ADDR, MASTER_PORT, NODE_RANK not set",
    ):
        assert part in text
    start(monkeypatch, {"MASTER_ADDR": "head", "MASTER_PORT": "5", "NODE_RANK": "1"})
    trainer = quiet(devices=2, num_nodes=2)
    assert (trainer.world_size, trainer.global_rank, trainer.node_rank) == (4, 2, 1)


def test_processes_started_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    start(monkeypatch, BY_HAND)
    trainer = quiet(devices=2, num_nodes=2)
    assert (trainer.world_size, trainer.global_rank) == (4, 3)
    environment = LightningEnvironment()
    assert environment.creates_processes_externally
    assert (environment.main_address, environment.main_port) == ("head", 5000)


def test_number_of_a_node_is_that_of_who_started_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Torchrun numbers the nodes as they come, whatever else has numbered them."""
    start(monkeypatch, TORCHRUN, {"GROUP_RANK": "0", "NODE_RANK": "1"})
    assert TorchElasticEnvironment().node_rank() == 0
    start(monkeypatch, {"GROUP_RANK": "1", "NODE_RANK": "0"})
    assert LightningEnvironment().node_rank() == 0


def test_port_of_a_program_that_needs_nobody_is_free() -> None:
    environment = LightningEnvironment()
    assert environment.main_port == environment.main_port  # found once
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", environment.main_port))
    environment.set_world_size(4)
    environment.set_global_rank(2)
    environment.teardown()
    assert (environment.world_size(), environment.global_rank()) == (4, 2)


def test_lsf_reads_its_file_of_hosts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    slots = tmp_path / "ranks"
    slots.write_text(
        "launch\n" + "b01\n" * 3 + f"{socket.gethostname()}\n" * 3, encoding="utf-8"
    )
    start(monkeypatch, JSRUN, {"LSB_DJOB_RANKFILE": str(slots)})
    assert LSFEnvironment().main_address == "b01"
    assert LSFEnvironment().node_rank() == 1


def test_mpirun_that_does_not_name_its_first_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start(monkeypatch, OPEN_MPI)
    monkeypatch.delenv("MASTER_ADDR")
    with pytest.raises(MisconfigurationException, match="mpirun -x MASTER_ADDR=HOST"):
        assert MPIEnvironment().main_address
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[1-2]")
    assert MPIEnvironment().main_address == "n1"
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_SIZE", "4")
    assert MPIEnvironment().main_address == "127.0.0.1"


def test_tasks_of_one_card_each(monkeypatch: pytest.MonkeyPatch) -> None:
    start(monkeypatch, SRUN)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    trainer = Trainer(
        accelerator="gpu",
        num_nodes=2,
        logger=False,
        enable_checkpointing=False,
        fast_dev_run=True,
    )
    assert (trainer.world_size, trainer.num_devices, trainer.local_rank) == (4, 2, 1)
    assert trainer.strategy.root_device == torch.device("cuda", 0)


def test_card_that_several_processes_take_for_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = "NCCL error\nLast error:\nDuplicate GPU detected : rank 1 and rank 0 both on"

    def begin(*_: Any, **__: Any) -> None:
        raise torch.distributed.DistBackendError(said)

    start(monkeypatch, TORCHRUN)
    monkeypatch.setattr(torch.distributed, "init_process_group", begin)
    strategy = DDPStrategy(parallel_devices=[torch.device("cuda", 0)] * 2)
    monkeypatch.setattr(strategy, "_store", lambda: None)
    with pytest.raises(
        MisconfigurationException, match=r"2 processes .* the same card"
    ):
        strategy._join(torch.device("cuda", 0))
    said = "NCCL error: unhandled system error"
    with pytest.raises(torch.distributed.DistBackendError, match="unhandled"):
        strategy._join(torch.device("cuda", 0))


@pytest.mark.parametrize(
    ("of_each", "threads"),
    [
        ([(0, {0, 1}), (0, {2, 3})], 2),  # bound, as by `srun --cpus-per-task=2`
        ([(0, {0, 1, 2, 3}), (0, {0, 1, 2, 3})], 2),
        ([(0, {0}), (0, {0}), (1, {0, 1, 2}), (1, {3, 4, 5})], 1),
    ],
)
def test_processors_of_a_node_are_shared_out(
    of_each: list[tuple[int, set[int]]],
    threads: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    strategy = DDPStrategy(parallel_devices=[torch.device("cpu")] * 2)
    strategy._ranks = Ranks(world_size=len(of_each), local_world_size=2)
    monkeypatch.setattr(strategy, "gather_objects", lambda own: of_each)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    set_to: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    strategy._share_processors()
    assert set_to == [threads]
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    strategy._share_processors()
    assert set_to == [threads]


class Site(ClusterEnvironment):
    """A cluster as somebody wrote it down for Lightning."""

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        return 6000

    @staticmethod
    def detect() -> bool:
        return True

    def world_size(self) -> int:
        return int(os.environ["SITE_SIZE"])

    def set_world_size(self, size: int) -> None:
        pass

    def global_rank(self) -> int:
        return int(os.environ["SITE_RANK"])

    def set_global_rank(self, rank: int) -> None:
        pass

    def local_rank(self) -> int:
        return self.global_rank() % 2

    def node_rank(self) -> int:
        return self.global_rank() // 2


def test_own_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    start(monkeypatch, SRUN, {"SITE_SIZE": "4", "SITE_RANK": "2"})
    trainer = quiet(num_nodes=2, plugins=[Site()])
    assert isinstance(trainer.strategy.cluster_environment, Site)
    assert (trainer.world_size, trainer.global_rank) == (4, 2)
    assert (trainer.num_devices, trainer.node_rank, trainer.local_rank) == (2, 1, 0)
    with pytest.raises(MisconfigurationException, match=r"1 x 1 = 1 .* 4 have been"):
        quiet(devices=1, plugins=[Site()])
    with pytest.raises(MisconfigurationException, match="a Site and a SLURM"):
        quiet(plugins=[Site(), SLURMEnvironment()])
    monkeypatch.setenv("SITE_RANK", "4")
    with pytest.raises(MisconfigurationException, match="process 4 of 4"):
        quiet(num_nodes=2, plugins=[Site()])


def test_slurm_settings_say_what_requeues(monkeypatch: pytest.MonkeyPatch) -> None:
    # As in a program that runs on a desk too, where SLURM has started nothing.
    trainer = quiet(plugins=SLURMEnvironment(auto_requeue=False))
    assert trainer.world_size == 1
    assert slurm.requeue_signal(trainer.strategy.cluster_environment) is None
    start(monkeypatch, SRUN)
    assert slurm.requeue_signal(quiet(num_nodes=2).strategy.cluster_environment) == (
        signal.SIGUSR1
    )
    given = SLURMEnvironment(requeue_signal=signal.SIGUSR2)
    assert slurm.requeue_signal(given) == signal.SIGUSR2
    assert (SLURMEnvironment.job_id(), SLURMEnvironment.job_name()) == (4711, "train")


def test_process_whose_others_do_not_come_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start(monkeypatch, {"LOCAL_RANK": "0", "MASTER_PORT": "29500"})
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # so that torch's setting stays
    said: queue.Queue[str] = queue.Queue()
    monkeypatch.setattr(parallel, "print_to_stderr", said.put)
    monkeypatch.setattr(parallel, "_PATIENCE_S", 0.0)
    found = []

    def join(self: DDPStrategy, device: torch.device) -> None:
        found.append(said.get(timeout=60))
        raise InterruptedError

    monkeypatch.setattr(DDPStrategy, "_join", join)
    trainer = quiet(devices=2, strategy="ddp")
    with pytest.raises(InterruptedError):
        trainer.strategy.setup_environment()
    assert found == [
        "Process 0 of 2 still waits for the others to start (LOCAL_RANK=0, "
        "MASTER_PORT=29500)."
    ]
