"""Which processors there are for a process, and how many of them for its loaders."""

from __future__ import annotations

import os


def own_processors() -> set[int]:
    """Return the numbers of the processors on which this process may run."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def suggested_max_num_workers(local_world_size: int) -> int:
    """Return how many workers each loader of this machine may have.

    One processor is left to each process that trains.

    Args:
        local_world_size: Processes that train on this machine, at least 1.

    Raises:
        ValueError: It is below 1.
    """
    if local_world_size < 1:
        raise ValueError(f"`local_world_size` is {local_world_size}; at least 1 trains")
    return max(1, len(own_processors()) // local_world_size - 1)
