"""Processes that torchrun has started, or anybody who sets its variables."""

from __future__ import annotations

import os

from lightgen_runtime.strategies.environments.cluster import (
    StartedByLauncher,
    number,
    required,
)

_REQUIRED = ("RANK", "LOCAL_RANK", "WORLD_SIZE")


class TorchElasticEnvironment(StartedByLauncher):
    """Processes of torchrun.

    Compat: found by RANK, LOCAL_RANK and WORLD_SIZE, whoever has set them.
    """

    launcher = "torchrun"
    variables = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    start_line = "`torchrun --nnodes {nodes} --nproc-per-node {devices}`"

    @staticmethod
    def detect() -> bool:
        """Tell whether the variables of a rank are set."""
        return all(number(name) is not None for name in _REQUIRED)

    @property
    def main_address(self) -> str:
        """MASTER_ADDR."""
        return os.environ.get("MASTER_ADDR", "127.0.0.1")

    @property
    def main_port(self) -> int:
        """MASTER_PORT; without it that of Lightning, which nobody shares by chance."""
        return int(os.environ.get("MASTER_PORT", "12910"))

    def world_size(self) -> int:
        """Return WORLD_SIZE."""
        return required("WORLD_SIZE")

    def global_rank(self) -> int:
        """Return RANK."""
        return required("RANK")

    def local_rank(self) -> int:
        """Return LOCAL_RANK."""
        return required("LOCAL_RANK")

    def node_rank(self) -> int:
        """Return GROUP_RANK, else NODE_RANK."""
        return number("GROUP_RANK", "NODE_RANK") or 0

    def local_world_size(self) -> int | None:
        """Return LOCAL_WORLD_SIZE."""
        return number("LOCAL_WORLD_SIZE")
