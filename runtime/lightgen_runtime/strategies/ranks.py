"""Which of several processes this one is."""

from __future__ import annotations

from dataclasses import dataclass

from lightgen_runtime.strategies.environments.cluster import ClusterEnvironment
from lightgen_runtime.strategies.environments.detection import choose_environment
from lightgen_runtime.utilities.exceptions import MisconfigurationException


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
        """Return the variables, torchrun's, that make a new process these ranks'."""
        return {
            "RANK": str(self.global_rank),
            "LOCAL_RANK": str(self.local_rank),
            "GROUP_RANK": str(self.node_rank),
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_WORLD_SIZE": str(self.local_world_size),
        }


def ranks_from_environment() -> Ranks | None:
    """Return the ranks that whoever started this process gave it; None if nobody did."""
    environment = choose_environment()
    if not environment.creates_processes_externally:
        return None
    world_size = environment.world_size()
    return Ranks(
        environment.global_rank(),
        environment.local_rank(),
        environment.node_rank(),
        world_size,
        environment.local_world_size() or world_size,
    )


def ranks_in(environment: ClusterEnvironment, here: int, num_nodes: int) -> Ranks:
    """Return this process's ranks, the trainer's numbers being those of its environment.

    Args:
        environment: Who has started it.
        here: Processes on this node.
        num_nodes: Nodes.

    Raises:
        MisconfigurationException: The numbers contradict.
    """
    local_rank, node_rank = environment.local_rank(), environment.node_rank()
    global_rank, world_size = node_rank * here + local_rank, here * num_nodes
    environment.set_world_size(world_size)
    environment.set_global_rank(global_rank)
    environment.validate_settings(here, num_nodes)
    if environment.creates_processes_externally:
        global_rank, world_size = environment.global_rank(), environment.world_size()
    if not (0 <= global_rank < world_size and 0 <= local_rank < here):
        raise MisconfigurationException(
            f"{type(environment).__name__} says that this is process {global_rank} of "
            f"{world_size}, number {local_rank} of {here} on its node"
            f"{environment.quoted()}; both count from 0"
        )
    return Ranks(global_rank, local_rank, node_rank, world_size, here)
