"""The loops that code written for Lightning asks a trainer for, as far as it reads them.

There are no such objects here: a fit is one function. These show its counters and limits.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from lightgen_runtime.io.schema import EPOCH_START, SETTLED, loops_from_progress

if TYPE_CHECKING:
    from lightgen_runtime.loops.progress import Progress
    from lightgen_runtime.trainer.view import TrainerView


class FitLoopView:
    """`trainer.fit_loop`: limits, which may be assigned, and counters, which may not.

    To train further, assign a larger `max_epochs` or `max_steps` and call `fit` again.
    """

    def __init__(self, trainer: TrainerView) -> None:
        self._trainer = trainer

    @property
    def epoch_loop(self) -> EpochLoopView:
        """What Lightning keeps of the batches within an epoch."""
        return EpochLoopView(self._trainer)

    @property
    def epoch_progress(self) -> Any:
        """Epochs, as `.current.completed` or `.total.ready`."""
        return _counters(self._trainer, "epoch_progress")

    @property
    def max_epochs(self) -> int:
        """Epochs to train; -1 for no limit."""
        return self._trainer.max_epochs

    @max_epochs.setter
    def max_epochs(self, epochs: int) -> None:
        self._trainer.max_epochs = epochs

    @property
    def min_epochs(self) -> int | None:
        """Epochs before a request to stop counts."""
        return self._trainer.min_epochs

    @min_epochs.setter
    def min_epochs(self, epochs: int | None) -> None:
        self._trainer.min_epochs = epochs

    @property
    def max_steps(self) -> int:
        """Optimizer steps to train; -1 for no limit."""
        return self._trainer.max_steps

    @property
    def min_steps(self) -> int | None:
        """Optimizer steps before a request to stop counts."""
        return self._trainer.min_steps

    def setup_data(self) -> None:
        """Make the training loader now, if it is not there yet."""
        _ = self._trainer.train_dataloader

    @property
    def max_batches(self) -> int | float:
        """Batches in a training epoch; infinity if the loader has no length."""
        return self._trainer.num_training_batches

    @property
    def total_batch_idx(self) -> int:
        """Number of the running batch over all epochs, from 0."""
        progress = self._trainer.progress
        return progress.total_batches - (not _between_batches(progress))

    @property
    def batch_idx(self) -> int:
        """Number of the running batch in its epoch, from 0."""
        progress = self._trainer.progress
        return progress.batch_idx - (not _between_batches(progress))


class EpochLoopView:
    """`trainer.fit_loop.epoch_loop`: steps and batches."""

    def __init__(self, trainer: TrainerView) -> None:
        self._trainer = trainer

    @property
    def global_step(self) -> int:
        """Optimizer steps taken."""
        return self._trainer.global_step

    @property
    def batch_progress(self) -> Any:
        """Batches, as `.total.completed`, as a checkpoint written now would hold them."""
        return _counters(self._trainer, "epoch_loop.batch_progress")

    @property
    def batch_idx(self) -> int:
        """Number of the running batch in its epoch, from 0."""
        return self._trainer.fit_loop.batch_idx

    @property
    def total_batch_idx(self) -> int:
        """Number of the running batch over all epochs, from 0."""
        return self._trainer.fit_loop.total_batch_idx

    @property
    def _batches_that_stepped(self) -> int:
        # Not public in Lightning either, but what its own callbacks and many others give
        # to loggers as the step.
        return self._trainer.progress.batches_that_stepped

    @property
    def max_steps(self) -> int:
        """Optimizer steps to train; -1 for no limit."""
        return self._trainer.max_steps

    @max_steps.setter
    def max_steps(self, steps: int) -> None:
        self._trainer.max_steps = steps

    @property
    def min_steps(self) -> int | None:
        """Optimizer steps before a request to stop counts."""
        return self._trainer.min_steps

    @min_steps.setter
    def min_steps(self, steps: int | None) -> None:
        self._trainer.min_steps = steps


def _between_batches(progress: Progress) -> bool:
    """Tell whether the counters do not include the running batch yet."""
    return progress.phase in (EPOCH_START, SETTLED)


def _counters(trainer: TrainerView, name: str) -> Any:
    loops = loops_from_progress(trainer.progress.state_dict())
    return _as_namespace(loops["fit_loop"][name])


def _as_namespace(value: Any) -> Any:
    if isinstance(value, dict):
        return SimpleNamespace(**{k: _as_namespace(v) for k, v in value.items()})
    return value
