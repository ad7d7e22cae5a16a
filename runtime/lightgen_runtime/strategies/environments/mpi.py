"""Processes that `mpirun` has started: Open MPI's, MPICH's or Intel's."""

from __future__ import annotations

import hashlib
import os
from typing import NamedTuple

from lightgen_runtime.strategies.environments.cluster import (
    StartedByLauncher,
    address_or,
    number,
    port_of_job,
    port_or,
    required,
)
from lightgen_runtime.strategies.environments.lsf import compute_hosts
from lightgen_runtime.strategies.environments.slurm import SLURMEnvironment
from lightgen_runtime.utilities.exceptions import MisconfigurationException


class _Names(NamedTuple):
    """The variables of one kind of MPI."""

    rank: str
    size: str
    local_rank: str
    local_size: str


_OPEN_MPI = _Names(
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
)
_MPICH = _Names("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS")
# By which the processes of one `mpirun` know each other, or their job.
_JOBS = ("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "OMPI_MCA_orte_ess_jobid")
_BATCH_JOBS = ("SLURM_JOB_ID", "LSB_JOBID", "PBS_JOBID")
_DEFAULT_PORT = 29500  # Source: torchrun's


class MPIEnvironment(StartedByLauncher):
    """Processes of `mpirun`, one a device.

    Compat: what Lightning asks `mpi4py` for is read from the variables that `mpirun`
    sets. They do not always name the first host: set MASTER_ADDR.
    """

    launcher = "mpirun"
    variables = (*_OPEN_MPI, *_MPICH)
    start_line = "`mpirun` with {devices} process(es) on each of {nodes} node(s)"

    @staticmethod
    def detect() -> bool:
        """Tell whether `mpirun` has started this process."""
        return any(
            all(number(name) is not None for name in kind[:3])
            for kind in (_OPEN_MPI, _MPICH)
        )

    @property
    def main_address(self) -> str:
        """MASTER_ADDR, else what is known of the hosts.

        Raises:
            MisconfigurationException: Nothing is, on several hosts.
        """
        hosts = [*_hosts_of_job(), ""]
        if self.local_world_size() == self.world_size():
            hosts = ["127.0.0.1"]
        if address := address_or(hosts[0]):
            return address
        raise MisconfigurationException(
            "`mpirun` does not say which host has the first of its "
            f"{self.world_size()} processes. Tell all of them: `mpirun -x "
            "MASTER_ADDR=HOST ...` (Open MPI) or `mpirun -genv MASTER_ADDR HOST ...` "
            "(MPICH, Intel)."
        )

    @property
    def main_port(self) -> int:
        """MASTER_PORT, else one that follows from the job, else torchrun's."""
        job = next(
            (os.environ[v] for v in (*_JOBS, *_BATCH_JOBS) if v in os.environ), ""
        )
        digest = int(hashlib.sha256(job.encode()).hexdigest()[:8], 16)
        return port_or(port_of_job(digest) if job else _DEFAULT_PORT)

    def world_size(self) -> int:
        """Return the number of processes."""
        return required(_names().size)

    def global_rank(self) -> int:
        """Return this process's number among all."""
        return required(_names().rank)

    def local_rank(self) -> int:
        """Return this process's number on its host."""
        return required(_names().local_rank)

    def local_world_size(self) -> int | None:
        """Return the number of processes on this host."""
        return number(_names().local_size)

    def node_rank(self) -> int:
        """Return this host's number, taking all hosts to have as many processes."""
        return self.global_rank() // (self.local_world_size() or self.world_size())


def _names() -> _Names:
    return _MPICH if number(_OPEN_MPI.rank) is None else _OPEN_MPI


def _hosts_of_job() -> list[str]:
    """Return the hosts of the job around `mpirun`, which fills them in this order."""
    nodes = os.environ.get("SLURM_JOB_NODELIST")
    if nodes:
        return [SLURMEnvironment.resolve_root_node_address(nodes)]
    return compute_hosts()
