"""What every logger has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from argparse import Namespace
from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor, nn

from lightgen_runtime.utilities.rank_zero import rank_zero_only

if TYPE_CHECKING:
    from lightgen_runtime.callbacks.model_checkpoint import ModelCheckpoint

L = TypeVar("L", bound="Logger")


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

    def adopt_version(self, version: int | str | None) -> None:
        """Take over the version that this run's first process has, in all others."""

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
        self,
        params: Mapping[str, Any] | Namespace | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Record the hyperparameters of the run; a logger may take more than these."""

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

    def state_dict(self) -> dict[str, Any]:
        """Return how far the records have come, as plain data for a checkpoint.

        Called behind `save`, by the process that writes.
        """
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Drop what an earlier process recorded after the checkpoint that held `state`.

        Called before a resumed fit records anything. A logger whose records are others
        than those of that process leaves them alone.
        """

    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        """Run after `checkpoint_callback` wrote a checkpoint."""


class DummyExperiment:
    """Accepts every call and every item, and does nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return _ignoring(name)

    def __getitem__(self, index: Any) -> DummyExperiment:
        return self

    def __setitem__(self, index: Any, value: Any) -> None:
        pass


class DummyLogger(Logger):
    """Stands in for the user's logger in a trial run: code that logs runs, nothing stays."""

    def __init__(self) -> None:
        self._experiment = DummyExperiment()

    @property
    def experiment(self) -> DummyExperiment:
        """What accepts `self.logger.experiment.anything(...)`."""
        return self._experiment

    @property
    def name(self) -> str:
        """Empty."""
        return ""

    @property
    def version(self) -> str:
        """Empty."""
        return ""

    def log_metrics(
        self, metrics: Mapping[str, float | Tensor], step: int | None = None
    ) -> None:
        """Drop `metrics`."""

    def log_hyperparams(
        self, params: Mapping[str, Any] | Namespace | None = None
    ) -> None:
        """Drop `params`."""

    def __getitem__(self, index: Any) -> DummyLogger:
        return self

    def __getattr__(self, name: str) -> Callable[..., None]:
        return _ignoring(name)


def rank_zero_experiment(fn: Callable[[L], Any]) -> Callable[[L], Any]:
    """Decorate a logger's `experiment`: other processes than the first get a dummy."""

    @wraps(fn)
    def experiment(self: L) -> Any:
        return fn(self) if rank_zero_only.rank == 0 else DummyExperiment()

    return experiment


def _ignoring(name: str) -> Callable[..., None]:
    if name.startswith("__"):  # or `copy` and `pickle` would take it for an answer
        raise AttributeError(name)

    def nothing(*args: Any, **kwargs: Any) -> None:
        pass

    return nothing
