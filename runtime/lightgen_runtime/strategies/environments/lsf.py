"""Tasks that LSF's `jsrun` has started."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from lightgen_runtime.strategies.environments.cluster import (
    StartedByLauncher,
    address_or,
    number,
    port_of_job,
    port_or,
    required,
)


class LSFEnvironment(StartedByLauncher):
    """Tasks of `jsrun`, one a device."""

    launcher = "LSF's jsrun"
    variables = ("JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_LOCAL_SIZE", "LSB_JOBID")
    start_line = "`jsrun --nrs {nodes} --tasks_per_rs {devices}`"

    @staticmethod
    def detect() -> bool:
        """Tell whether `jsrun` has started this process in a job of LSF."""
        names = ("LSB_JOBID", "JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE")
        return all(number(name) is not None for name in names)

    @property
    def main_address(self) -> str:
        """MASTER_ADDR, else the job's first host that computes."""
        return address_or(next(iter(compute_hosts()), "127.0.0.1"))

    @property
    def main_port(self) -> int:
        """MASTER_PORT, else one that follows from the job."""
        return port_or(port_of_job(number("LSB_JOBID") or 0))

    def world_size(self) -> int:
        """Return JSM_NAMESPACE_SIZE."""
        return required("JSM_NAMESPACE_SIZE")

    def global_rank(self) -> int:
        """Return JSM_NAMESPACE_RANK."""
        return required("JSM_NAMESPACE_RANK")

    def local_rank(self) -> int:
        """Return JSM_NAMESPACE_LOCAL_RANK."""
        return required("JSM_NAMESPACE_LOCAL_RANK")

    def local_world_size(self) -> int | None:
        """Return JSM_NAMESPACE_LOCAL_SIZE."""
        return number("JSM_NAMESPACE_LOCAL_SIZE")

    def node_rank(self) -> int:
        """Return this host's place in the job's list, else what the numbers tell."""
        hosts = [host.partition(".")[0] for host in compute_hosts()]
        own = socket.gethostname().partition(".")[0]
        if own in hosts:
            return hosts.index(own)
        return self.global_rank() // (self.local_world_size() or self.world_size())


def compute_hosts() -> list[str]:
    """Return the job's hosts, each once, without the one that only launches.

    LSB_DJOB_RANKFILE names a host a line, a line a slot; LSB_MCPU_HOSTS has hosts and
    numbers of slots in turn. The first slot is the launching one's.
    """
    rank_file = os.environ.get("LSB_DJOB_RANKFILE")
    if rank_file and Path(rank_file).is_file():
        slots = Path(rank_file).read_text().split()
    else:
        pairs = os.environ.get("LSB_MCPU_HOSTS", "").split()
        counts = zip(pairs[::2], map(int, pairs[1::2]), strict=False)
        slots = [host for host, count in counts for _ in range(count)]
    return list(dict.fromkeys(slots[1:] or slots))
