"""Tasks that SLURM's `srun` has started."""

from __future__ import annotations

import os
import re
import signal
import sys

from lightgen_runtime.strategies.environments.cluster import (
    StartedByLauncher,
    address_or,
    number,
    port_of_job,
    port_or,
)

# Source: the job names by which Lightning 2.6.6 knows an interactive session.
INTERACTIVE = ("bash", "interactive")
_NO_STEP = 4_000_000_000  # from here on numbers stand for batch scripts and the like
_NODE_LISTS = ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
_COUNTS = ("SLURM_STEP_TASKS_PER_NODE", "SLURM_NTASKS_PER_NODE", "SLURM_TASKS_PER_NODE")


class SLURMEnvironment(StartedByLauncher):
    """Tasks of `srun`, one a device.

    Args:
        auto_requeue: Put the job back into its queue when a warning has ended the fit.
        requeue_signal: The warning; by default SIGUSR1.

    Compat: the shell of an interactive session, a batch script's own process and a task
    that is alone are no ranks: a trainer there starts its other processes itself. Tasks of
    `srun` in such a session are ranks, though it gives them its job's name.
    """

    launcher = "SLURM"
    variables = ("SLURM_JOB_ID", "SLURM_NTASKS", *_COUNTS)
    start_line = "`srun --nodes={nodes} --ntasks-per-node={devices}`"

    def __init__(
        self, auto_requeue: bool = True, requeue_signal: signal.Signals | None = None
    ) -> None:
        self.auto_requeue = auto_requeue
        if requeue_signal is None and hasattr(signal, "SIGUSR1"):
            requeue_signal = signal.SIGUSR1
        self.requeue_signal = requeue_signal

    @staticmethod
    def detect() -> bool:
        """Tell whether `srun` has started this process and others."""
        # A batch script's own process has a rank's numbers too, but is in no step.
        step = number("SLURM_STEP_ID")
        of_step = step is not None and step < _NO_STEP
        has_others = SLURMEnvironment().creates_processes_externally
        return of_step and has_others and not _is_interactive()

    @property
    def creates_processes_externally(self) -> bool:
        """Whether there are other tasks."""
        return self.world_size() > 1

    @property
    def main_address(self) -> str:
        """MASTER_ADDR, else the first host of the step or job."""
        lists = (os.environ.get(name) for name in _NODE_LISTS)
        nodes = next(filter(None, lists), "127.0.0.1")
        return address_or(self.resolve_root_node_address(nodes))

    @property
    def main_port(self) -> int:
        """MASTER_PORT, else one that follows from the job and its step."""
        step = number("SLURM_STEP_ID") or 0
        return port_or(port_of_job(self.job_id() or 0, step))

    def world_size(self) -> int:
        """Return SLURM_NTASKS."""
        return number("SLURM_NTASKS") or 1

    def global_rank(self) -> int:
        """Return SLURM_PROCID."""
        return number("SLURM_PROCID") or 0

    def local_rank(self) -> int:
        """Return SLURM_LOCALID."""
        return number("SLURM_LOCALID") or 0

    def node_rank(self) -> int:
        """Return SLURM_NODEID."""
        return number("SLURM_NODEID") or 0

    def local_world_size(self) -> int | None:
        """Return the number of tasks on this node."""
        counts = (os.environ.get(name) for name in _COUNTS)
        return tasks_on_node(next(filter(None, counts), ""), self.node_rank())

    @staticmethod
    def job_id() -> int | None:
        """Return the job's number."""
        return number("SLURM_JOB_ID")

    @staticmethod
    def job_name() -> str | None:
        """Return the job's name."""
        return os.environ.get("SLURM_JOB_NAME")

    @staticmethod
    def resolve_root_node_address(nodes: str) -> str:
        """Return the first host of a list of them.

        Args:
            nodes: Names, by commas or spaces, where `a[03-05,9]` stands for several.

        Example:
            >>> SLURMEnvironment.resolve_root_node_address("gpu[003-005,9]-x,cpu1")
            'gpu003-x'
        """
        first = re.match(r"(?:\[[^\]]*\]|[^,\s])*", nodes.strip())
        assert first is not None  # it may be empty
        return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first[0])


def _is_interactive() -> bool:
    """Tell whether somebody types into the session that this process belongs to."""
    named = SLURMEnvironment.job_name() in INTERACTIVE
    return named and (hasattr(sys, "ps1") or has_terminal())


def has_terminal() -> bool:
    """Tell whether a terminal controls this process, whatever its streams are."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY))
    except OSError:
        return False
    return True


def tasks_on_node(counts: str, node: int) -> int | None:
    """Return how many tasks a node has, by SLURM's counts such as "4(x2),3".

    A single count is every node's.
    """
    parts = re.findall(r"(\d+)(?:\(x(\d+)\))?", counts)
    each = [int(count) for count, times in parts for _ in range(int(times or 1))]
    if len(each) == 1:
        return each[0]
    return each[node] if node < len(each) else None
