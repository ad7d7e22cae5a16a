"""Which of several processes this one is."""

from __future__ import annotations

import os
from dataclasses import dataclass

# The environment by which torchrun, and rank 0 of a program that starts the others by
# itself, tell a process who it is.
_REQUIRED = ("RANK", "LOCAL_RANK", "WORLD_SIZE")


@dataclass(frozen=True)
class Ranks:
    """A process's numbers, all from 0, and how many processes there are.

    Attributes:
        global_rank: Its number among all processes.
        local_rank: Its number on its node.
        node_rank: Its node's number.
        world_size: Processes on all nodes.
        local_world_size: Processes on its node.
    """

    global_rank: int = 0
    local_rank: int = 0
    node_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1

    def environment(self) -> dict[str, str]:
        """Return the variables that make a new process these ranks'."""
        return {
            "RANK": str(self.global_rank),
            "LOCAL_RANK": str(self.local_rank),
            "GROUP_RANK": str(self.node_rank),
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_WORLD_SIZE": str(self.local_world_size),
        }


def ranks_from_environment() -> Ranks | None:
    """Return the ranks that whoever started this process gave it; None if nobody did."""
    if not all(os.environ.get(name, "").isdigit() for name in _REQUIRED):
        return None
    global_rank, local_rank, world_size = (int(os.environ[n]) for n in _REQUIRED)
    node_rank = int(os.environ.get("GROUP_RANK", os.environ.get("NODE_RANK", "0")))
    local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    return Ranks(global_rank, local_rank, node_rank, world_size, local_world_size)
