"""How many processes a loader may have."""

from __future__ import annotations

import os


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
    if hasattr(os, "sched_getaffinity"):
        processors = len(os.sched_getaffinity(0))
    else:
        processors = os.cpu_count() or 1
    return max(1, processors // local_world_size - 1)
