"""Pods of a PyTorchJob, one process each."""

from __future__ import annotations

import os

from lightgen_runtime.strategies.environments.cluster import (
    StartedByLauncher,
    number,
    required,
)


class KubeflowEnvironment(StartedByLauncher):
    """Pods that Kubeflow's training operator has started, one process a pod.

    Compat: Lightning has to be told of it by `plugins`.
    """

    launcher = "Kubeflow"
    variables = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    start_line = (
        "a job of {nodes} pod(s) whose command is `torchrun --nnodes {nodes} "
        "--nproc-per-node {devices} PROGRAM`"
    )

    @staticmethod
    def detect() -> bool:
        """Tell whether a rank's variables are set, but not which process of a node."""
        names = ("RANK", "WORLD_SIZE", "MASTER_PORT")
        has_all = all(number(name) is not None for name in names)
        of_a_node = {"LOCAL_RANK", "NODE_RANK"} & os.environ.keys()
        return has_all and bool(os.environ.get("MASTER_ADDR")) and not of_a_node

    @property
    def main_address(self) -> str:
        """MASTER_ADDR."""
        return os.environ["MASTER_ADDR"]

    @property
    def main_port(self) -> int:
        """MASTER_PORT."""
        return required("MASTER_PORT")

    def world_size(self) -> int:
        """Return WORLD_SIZE."""
        return required("WORLD_SIZE")

    def global_rank(self) -> int:
        """Return RANK."""
        return required("RANK")

    def local_rank(self) -> int:
        """Return 0."""
        return 0

    def node_rank(self) -> int:
        """Return RANK."""
        return self.global_rank()

    def local_world_size(self) -> int | None:
        """Return 1."""
        return 1
