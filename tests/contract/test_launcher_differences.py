"""Where processes that somebody has started are meant to be something else than Lightning's.

Each test is named in a row of docs/compat.md.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch.distributed as dist
from lightning.pytorch.demos.boring_classes import BoringModel
from recording import OURS, REFERENCE, module_with, quiet_trainer
from torch.multiprocessing.spawn import ProcessRaisedException
from torch.utils.data import DataLoader

from lightgen_runtime.utilities.exceptions import MisconfigurationException

pytestmark = pytest.mark.filterwarnings("ignore")

PODS = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "head", "MASTER_PORT": "23456"}
SRUN = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NAME": "train",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "0",
    "SLURM_NTASKS": "2",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_JOB_NODELIST": "localhost",
}
MPIRUN = {
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}
TORCHRUN = {
    "RANK": "1",
    "LOCAL_RANK": "1",
    "GROUP_RANK": "0",
    "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "23456",
    "TORCHELASTIC_RUN_ID": "none",
}


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process have been started by nobody; afterwards too."""
    for name in list(os.environ):
        if name.startswith(("SLURM_", "OMPI_", "PMI_", "MASTER_")) or name in TORCHRUN:
            monkeypatch.delenv(name)


def ranks(namespace: str, environment: dict[str, str], **flags: Any) -> tuple[int, int]:
    """Return which process of how many a trainer takes itself for."""
    with pytest.MonkeyPatch.context() as started:
        for name, value in environment.items():
            started.setenv(name, value)
        trainer = quiet_trainer(namespace, **flags)
        return trainer.global_rank, trainer.world_size


def test_pods_of_kubeflow() -> None:
    assert ranks(REFERENCE, PODS, num_nodes=2) == (0, 2)  # each of them
    assert ranks(OURS, PODS, num_nodes=2) == (1, 2)


@pytest.mark.parametrize(
    "environment", [MPIRUN, {**SRUN, "SLURM_JOB_NAME": "interactive"}]
)
def test_started_processes_that_are_not_recognised(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm = "lightgen_runtime.strategies.environments.slurm"
    monkeypatch.setattr(f"{slurm}.has_terminal", lambda: False)
    assert ranks(REFERENCE, environment, devices=2) == (0, 2)  # each of them
    assert ranks(OURS, environment, devices=2) == (1, 2)


def test_process_of_a_job_that_is_alone() -> None:
    alone = {**SRUN, "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "1"}
    assert ranks(REFERENCE, alone, devices=2)[1] == 1
    assert ranks(OURS, alone, devices=2) == (0, 2)
    script = {name: value for name, value in SRUN.items() if name != "SLURM_STEP_ID"}
    script["SLURM_PROCID"] = script["SLURM_LOCALID"] = "0"

    def waits_for_others(namespace: str) -> Any:
        with pytest.MonkeyPatch.context() as started:
            for name, value in script.items():
                started.setenv(name, value)
            environment = quiet_trainer(namespace, devices=2).strategy
            return environment.cluster_environment.creates_processes_externally

    assert waits_for_others(REFERENCE)
    assert not waits_for_others(OURS)


@pytest.mark.parametrize("environment", [TORCHRUN, SRUN])
def test_devices_that_nobody_has_started(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    theirs = quiet_trainer(REFERENCE, devices=3)
    with pytest.raises(ValueError, match="does not match"):
        theirs.fit(BoringModel())
    with pytest.raises(MisconfigurationException, match="3 x 1 = 3 process"):
        quiet_trainer(OURS, devices=3)


def test_one_device_in_a_process_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ranks(REFERENCE, TORCHRUN, devices=1) == (0, 1)
    with pytest.raises(MisconfigurationException, match="4 have been started"):
        ranks(OURS, TORCHRUN, devices=1)
    assert ranks(OURS, TORCHRUN, devices=1, strategy="single_device") == (0, 1)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    assert ranks(OURS, TORCHRUN, devices=1) == (0, 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_predictions_of_spawned_processes() -> None:
    def predict(namespace: str, **flags: Any) -> Any:
        members = {"predict_step": lambda self, batch, batch_idx: batch.tolist()}
        trainer = quiet_trainer(namespace, strategy="ddp_fork")
        numbers: Any = [1, 2, 3]
        loader: Any = DataLoader(numbers)
        return trainer.predict(module_with(namespace, **members), loader, **flags)

    assert predict(REFERENCE) is None
    with pytest.raises(ProcessRaisedException, match="return_predictions"):
        predict(REFERENCE, return_predictions=True)
    assert predict(OURS) == predict(OURS, return_predictions=True) == [[1], [2], [3]]
