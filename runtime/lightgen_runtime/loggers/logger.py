"""What every logger has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from argparse import Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from lightgen_runtime.callbacks.model_checkpoint import ModelCheckpoint


class Logger(ABC):
    """Receive the metrics and hyperparameters of a run.

    A logger gets plain floats at the logging cadence, never tensors, and only on rank
    zero.
    """

    @property
    @abstractmethod
    def name(self) -> str | None:
        """The name shared by the runs of one experiment."""

    @property
    @abstractmethod
    def version(self) -> int | str | None:
        """What tells this run from the others of that name."""

    @property
    def root_dir(self) -> str | None:
        """The folder of all versions, where this logger keeps files."""
        return None

    @property
    def log_dir(self) -> str | None:
        """The folder of this version, where this logger keeps files."""
        return None

    @property
    def save_dir(self) -> str | None:
        """The folder of all experiments, where this logger keeps files."""
        return None

    @property
    def group_separator(self) -> str:
        """Put between a prefix or group and a metric's name."""
        return "/"

    @property
    def experiment(self) -> Any:
        """The object behind this logger, for what the common interface lacks."""
        return None

    @abstractmethod
    def log_metrics(
        self, metrics: Mapping[str, float | Tensor], step: int | None = None
    ) -> None:
        """Record `metrics` at `step` (batches that stepped, from 0)."""

    @abstractmethod
    def log_hyperparams(
        self, params: Mapping[str, Any] | Namespace | None = None
    ) -> None:
        """Record the hyperparameters of the run."""

    def log_graph(self, model: nn.Module, input_array: Tensor | None = None) -> None:
        """Record the model's graph, where the logger can show one."""

    def save(self) -> None:
        """Write what is buffered."""

    def finalize(self, status: str) -> None:
        """Write what is buffered at the end of a run.

        Args:
            status: `success` or `failed`.
        """
        self.save()

    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        """Run after `checkpoint_callback` wrote a checkpoint."""
