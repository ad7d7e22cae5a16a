"""The job that a program runs in, if its launcher may start the program again.

SLURM puts a job back into its queue, and torchrun starts its processes again. What a fit
writes bears the mark of its job, so that the same fit finds it later, and no other one does.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import sys
from typing import Any, NamedTuple

from lightgen_runtime.strategies.elastic import torchrun_launch
from lightgen_runtime.trainer import slurm


class Job(NamedTuple):
    """What may start this program again.

    Attributes:
        name: Unlike that of any other job.
        is_again: Whether it has started the program before.
    """

    name: str
    is_again: bool


def jobs() -> list[Job]:
    """Return the jobs around this process, the one that lasts longest first."""
    found = []
    if (number := slurm.batch_job()) is not None:
        found.append(Job(f"slurm-{number}", slurm.restarted_job() is not None))
    if (launch := torchrun_launch()) is not None:
        found.append(Job(f"torchrun-{launch.name}", launch.is_again))
    return found


def marks(*fit: Any, again: bool = False) -> list[str]:
    """Return what a fit is known by in each of its jobs.

    Args:
        *fit: What tells it from the other fits of the same command line.
        again: Only those of jobs that have started the program before.
    """
    # A process that was spawned has the command line of spawning, and the program's argv.
    spawned = multiprocessing.parent_process() is not None
    of_fit = json.dumps([sys.argv if spawned else sys.orig_argv[1:], *fit])
    digest = hashlib.sha256(of_fit.encode()).hexdigest()[:16]
    return [f"{job.name}-{digest}" for job in jobs() if job.is_again or not again]


def task() -> int:
    """Return which of several independent programs of a SLURM job this is."""
    spans_nodes = os.environ.get("GROUP_WORLD_SIZE", "1") != "1"
    return 0 if spans_nodes else slurm.task()
