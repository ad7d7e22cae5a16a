"""Processes that this program starts by itself, on one node or on several."""

from __future__ import annotations

import os
import socket

from lightgen_runtime.strategies.environments.cluster import (
    ClusterEnvironment,
    number,
)
from lightgen_runtime.utilities.exceptions import MisconfigurationException

_OF_A_NODE = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")


class LightningEnvironment(ClusterEnvironment):
    """The program is started once a node, and starts the node's other processes itself.

    One node needs nothing. On several, NODE_RANK says which this is, and MASTER_ADDR and
    MASTER_PORT where the first one is and which port is free there. A program for which
    LOCAL_RANK is set too has been started by hand, like all others.
    """

    launcher = "hand"
    variables = ("LOCAL_RANK", "WORLD_SIZE", *_OF_A_NODE)

    def __init__(self) -> None:
        self._port: int | None = None
        self._global_rank = 0
        self._world_size = number("WORLD_SIZE") or 1

    @property
    def creates_processes_externally(self) -> bool:
        """Whether LOCAL_RANK is set, and MASTER_PORT to meet the others."""
        return {"LOCAL_RANK", "MASTER_PORT"} <= os.environ.keys()

    @property
    def main_address(self) -> str:
        """MASTER_ADDR, by default this node."""
        return os.environ.get("MASTER_ADDR", "127.0.0.1")

    @property
    def main_port(self) -> int:
        """MASTER_PORT, by default one that is free."""
        if self._port is None:
            self._port = number("MASTER_PORT") or find_free_network_port()
        return self._port

    @staticmethod
    def detect() -> bool:
        """Return True: it needs nobody."""
        return True

    def world_size(self) -> int:
        """Return what was set."""
        return self._world_size

    def set_world_size(self, size: int) -> None:
        """Take the trainer's number of processes."""
        self._world_size = size

    def global_rank(self) -> int:
        """Return what was set."""
        return self._global_rank

    def set_global_rank(self, rank: int) -> None:
        """Take this process's number among all."""
        self._global_rank = rank

    def local_rank(self) -> int:
        """Return LOCAL_RANK, 0 where this process starts the others."""
        return (number("LOCAL_RANK") or 0) if self.creates_processes_externally else 0

    def node_rank(self) -> int:
        """Return NODE_RANK, else GROUP_RANK, by default 0."""
        return number("NODE_RANK", "GROUP_RANK") or 0

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Refuse several nodes that do not know of each other.

        Raises:
            MisconfigurationException: A variable is not set.
        """
        missing = [name for name in _OF_A_NODE if not os.environ.get(name)]
        if num_nodes == 1 or not missing:
            return
        raise MisconfigurationException(
            f"`Trainer(num_nodes={num_nodes})`: nobody has told this process of the other "
            "nodes. Run the program on every node with `lightgen train --nodes "
            f"{num_nodes} --devices {num_devices}` or `torchrun --nnodes {num_nodes} "
            f"--nproc-per-node {num_devices} --rdzv-backend c10d --rdzv-endpoint HOST:PORT "
            f"PROGRAM`; by `srun --nodes={num_nodes} --ntasks-per-node={num_devices}` in a "
            "job of SLURM; or by itself, with MASTER_ADDR and MASTER_PORT of the first "
            f"node and NODE_RANK (0 to {num_nodes - 1}) in its environment "
            f"({', '.join(missing)} not set)."
        )


def find_free_network_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as found:
        found.bind(("", 0))
        return int(found.getsockname()[1])
