"""Finding out by whom this process was started."""

from __future__ import annotations

import os

from lightgen_runtime.strategies.environments.cluster import ClusterEnvironment
from lightgen_runtime.strategies.environments.kubeflow import KubeflowEnvironment
from lightgen_runtime.strategies.environments.lightning import LightningEnvironment
from lightgen_runtime.strategies.environments.lsf import LSFEnvironment
from lightgen_runtime.strategies.environments.mpi import MPIEnvironment
from lightgen_runtime.strategies.environments.slurm import SLURMEnvironment
from lightgen_runtime.strategies.environments.torchelastic import (
    TorchElasticEnvironment,
)

# Set in the processes that another one of the program has started, to its process id.
STARTER = "LIGHTGEN_STARTED_BY"

# Whoever stands nearer to the process goes first: torchrun may run inside of `srun` or
# `mpirun`, and `mpirun` in a job of SLURM. `jsrun` sets the variables of Open MPI too.
_KINDS: tuple[type[ClusterEnvironment], ...] = (
    TorchElasticEnvironment,
    LSFEnvironment,
    MPIEnvironment,
    SLURMEnvironment,
    KubeflowEnvironment,
    LightningEnvironment,
)


def is_own_process() -> bool:
    """Tell whether another process of the same program has started this one."""
    return STARTER in os.environ


def choose_environment(given: ClusterEnvironment | None = None) -> ClusterEnvironment:
    """Return the environment of this process: the one given, else the one it is in.

    A process that another one of its program has started knows its numbers, whatever the
    two were started by.
    """
    if is_own_process():
        return TorchElasticEnvironment()
    return given or next(kind() for kind in _KINDS if kind.detect())


def processes_here(environment: ClusterEnvironment, num_nodes: int) -> int | None:
    """Return how many processes a launcher has started on this node; None if there is none.

    A program that starts its own says in each of them how many it wants.
    """
    if is_own_process() or not environment.creates_processes_externally:
        return None
    each = environment.world_size() // num_nodes
    return environment.local_world_size() or max(1, each)
