"""Who has started this process, and what that tells of the others."""

from lightgen_runtime.strategies.environments.cluster import ClusterEnvironment
from lightgen_runtime.strategies.environments.kubeflow import KubeflowEnvironment
from lightgen_runtime.strategies.environments.lightning import LightningEnvironment
from lightgen_runtime.strategies.environments.lsf import LSFEnvironment
from lightgen_runtime.strategies.environments.mpi import MPIEnvironment
from lightgen_runtime.strategies.environments.slurm import SLURMEnvironment
from lightgen_runtime.strategies.environments.torchelastic import (
    TorchElasticEnvironment,
)

__all__ = [
    "ClusterEnvironment",
    "KubeflowEnvironment",
    "LSFEnvironment",
    "LightningEnvironment",
    "MPIEnvironment",
    "SLURMEnvironment",
    "TorchElasticEnvironment",
]
