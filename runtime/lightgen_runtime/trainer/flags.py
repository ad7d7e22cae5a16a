"""The trainer's flags as attributes, which may also be changed between or during runs."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from lightgen_runtime.trainer.build import changed_parts

if TYPE_CHECKING:
    from lightgen_runtime.loggers import Logger
    from lightgen_runtime.loops.run import Run
    from lightgen_runtime.profilers.profiler import Profiler
    from lightgen_runtime.trainer.build import TrainerParts

T = TypeVar("T")


class _Flag(Generic[T]):
    """One flag. A new value is checked as the constructor checks it."""

    def __init__(self, doc: str) -> None:
        self.__doc__ = doc

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, trainer: None, owner: type) -> _Flag[T]: ...
    @overload
    def __get__(self, trainer: TrainerFlags, owner: type) -> T: ...
    def __get__(self, trainer: TrainerFlags | None, owner: type) -> Any:
        return self if trainer is None else getattr(trainer._parts, self._name)

    def __set__(self, trainer: TrainerFlags, value: T) -> None:
        trainer._change_flag(self._name, value)


class TrainerFlags:
    """What the constructor was told; the running loops look at most of it again.

    A limit of batches counts from the next run on, whose loaders it is applied to.
    """

    _parts: TrainerParts
    _run: Run | None

    max_epochs = _Flag[int]("Epochs to train; -1 for no limit.")
    min_epochs = _Flag[int | None]("Epochs before a request to stop counts.")
    max_steps = _Flag[int]("Optimizer steps to train; -1 for no limit.")
    min_steps = _Flag[int | None]("Optimizer steps before a request to stop counts.")
    limit_train_batches = _Flag[int | float]("Batches or share of each training epoch.")
    limit_val_batches = _Flag[int | float]("Batches or share of each validation.")
    limit_test_batches = _Flag[int | float]("Batches or share of each test.")
    limit_predict_batches = _Flag[int | float]("Batches or share of each prediction.")
    overfit_batches = _Flag[int | float]("Batches or share to train on over and over.")
    val_check_interval = _Flag[int | float | timedelta](
        "Share of an epoch, batches, or time between two validations."
    )
    check_val_every_n_epoch = _Flag[int | None]("Epochs between validations.")
    log_every_n_steps = _Flag[int]("Optimizer steps between two reports to loggers.")
    reload_dataloaders_every_n_epochs = _Flag[int](
        "Epochs between two sets of loaders."
    )
    accumulate_grad_batches = _Flag[int](
        "Batches whose gradients make one optimizer step; counts from the next epoch on."
    )
    gradient_clip_val = _Flag[float | None]("Largest norm, or value, of gradients.")
    gradient_clip_algorithm = _Flag[str | None](
        'How gradients are clipped: by "norm" or by "value".'
    )
    enable_autolog_hparams = _Flag[bool]("Whether loggers get the hyperparameters.")

    def _change_flag(self, name: str, value: Any) -> None:
        self._parts = changed_parts(self._parts, name, value)
        if self._run is not None:
            self._run.take_flags(self._parts)

    @property
    def fast_dev_run(self) -> bool | int:
        """Batches of a trial run; True for one, False if this is none."""
        batches = self._parts.fast_dev_run
        return batches if batches > 1 else bool(batches)

    @property
    def barebones(self) -> bool:
        """Whether this trainer trains and does nothing else."""
        return self._parts.barebones

    @property
    def num_sanity_val_steps(self) -> int | float:
        """Validation batches tried before training; infinity for all."""
        steps = self._parts.num_sanity_val_steps
        return float("inf") if steps == -1 else steps

    @num_sanity_val_steps.setter
    def num_sanity_val_steps(self, steps: int | float) -> None:
        self._change_flag(
            "num_sanity_val_steps", -1 if steps == float("inf") else steps
        )

    @property
    def profiler(self) -> Profiler:
        """What measures the run; without the flag, one that does nothing."""
        return self._parts.profiler

    @property
    def precision(self) -> str:
        """The run's number formats, e.g. "32-true"."""
        return self._parts.precision.precision

    @property
    def loggers(self) -> list[Logger]:
        """All loggers; assign a list to have others."""
        return self._parts.loggers

    @loggers.setter
    def loggers(self, loggers: list[Logger] | None) -> None:
        # In place: a run in progress holds the same list.
        self._parts.loggers[:] = loggers or []

    @property
    def logger(self) -> Logger | None:
        """The first logger; assign one, or None, to have no other."""
        return next(iter(self.loggers), None)

    @logger.setter
    def logger(self, logger: Logger | None) -> None:
        self.loggers = [] if logger is None else [logger]
