"""Measuring how long stages take, and ending a fit after a given time."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from enum import Enum
from time import monotonic
from typing import TYPE_CHECKING, Any

from lightgen_runtime.callbacks.callback import Callback
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.rank_zero import rank_zero_info

if TYPE_CHECKING:
    from lightgen_runtime.callbacks.callback import StepOutput
    from lightgen_runtime.core.module import LightningModule
    from lightgen_runtime.trainer.trainer import Trainer

STAGES = ("train", "sanity_check", "validate", "test", "predict")
# Several processes must stop at the same batch. To agree costs a message among them,
# which is not worth it after every batch.
AGREE_EVERY_N_BATCHES = 10


class Interval(str, Enum):
    """Where a fit may stop."""

    step = "step"
    epoch = "epoch"


INTERVALS = tuple(interval.value for interval in Interval)


class Timer(Callback):
    """Measure training, validation and testing; stop training when its time is over.

    Time spent in training before a checkpoint counts in the fit that goes on from it.

    Args:
        duration: How long to train: "DD:HH:MM:SS", a `timedelta`, or a dictionary of a
            timedelta's arguments. None only measures.
        interval: Stop at the end of the running "step" or "epoch".
        verbose: Tell when the time is over.

    Raises:
        MisconfigurationException: `duration` or `interval` is not accepted.

    Cost: one call a batch.

    Example:
        >>> Timer("00:12:00:00").time_remaining()
        43200.0
    """

    def __init__(
        self,
        duration: str | timedelta | Mapping[str, float] | None = None,
        interval: str = "step",
        verbose: bool = True,
    ) -> None:
        if interval not in INTERVALS:
            raise MisconfigurationException(
                f"`Timer(interval={interval!r})`: accepted are "
                f"{' and '.join(map(repr, INTERVALS))}"
            )
        self._duration = _seconds(duration)
        self._interval = _name(interval)
        self._verbose = verbose
        self._start: dict[str, float] = {}
        self._end: dict[str, float] = {}
        self._offset = 0.0
        self._deadline = math.inf
        self._agree_every = 0  # batches; 0 where there is nobody to agree with

    def start_time(self, stage: str = "train") -> float | None:
        """Return when a stage last started, on the monotonic clock."""
        return self._start.get(_name(stage))

    def end_time(self, stage: str = "train") -> float | None:
        """Return when a stage last ended, on the monotonic clock."""
        return self._end.get(_name(stage))

    def time_elapsed(self, stage: str = "train") -> float:
        """Return for how many seconds a stage has run.

        Args:
            stage: "train", "validate" or "test". Training includes its validation, and
                what was trained before a resumed checkpoint.
        """
        offset = self._offset if _name(stage) == "train" else 0.0
        start = self.start_time(stage)
        if start is None:
            return offset
        end = self.end_time(stage)
        return (monotonic() if end is None else end) - start + offset

    def time_remaining(self, stage: str = "train") -> float | None:
        """Return how many seconds of `duration` are left; None without a duration."""
        if self._duration is None:
            return None
        return self._duration - self.time_elapsed(stage)

    def state_dict(self) -> dict[str, Any]:
        """Return the seconds of every stage."""
        return {"time_elapsed": {stage: self.time_elapsed(stage) for stage in STAGES}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count from what the checkpoint had reached."""
        self._offset = state_dict.get("time_elapsed", {}).get("train", 0.0)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin a fit without the time of an earlier one."""
        if stage == "fit":
            self._offset = 0.0
            self._start.clear()
            self._end.clear()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do not even begin if a resumed fit has no time left."""
        self._stop_if_over(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._begin("train")
        self._deadline, self._agree_every = math.inf, 0
        if self._duration is None or self._interval != "step":
            return
        if trainer.world_size > 1:
            self._agree_every = AGREE_EVERY_N_BATCHES
        else:
            self._deadline = self._start["train"] + self._duration - self._offset

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._end["train"] = monotonic()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of validation."""
        self._begin("validate")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock of validation."""
        self._end["validate"] = monotonic()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of testing."""
        self._begin("test")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock of testing."""
        self._end["test"] = monotonic()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: StepOutput,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Ask to stop when the time is over."""
        if self._agree_every:
            if trainer.progress.total_batches % self._agree_every == 0:
                self._stop_if_over(trainer)
        elif monotonic() >= self._deadline:
            self._stop_if_over(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask to stop when the time is over."""
        if self._interval == "epoch":
            self._stop_if_over(trainer)

    def _begin(self, stage: str) -> None:
        self._end.pop(stage, None)
        self._start[stage] = monotonic()

    def _stop_if_over(self, trainer: Trainer) -> None:
        if self._duration is None:
            return
        over = self.time_elapsed() >= self._duration
        over = trainer.strategy.broadcast(over)
        if not over or trainer.should_stop:
            return
        trainer.should_stop = True
        if self._verbose:
            elapsed = timedelta(seconds=int(self.time_elapsed()))
            rank_zero_info(f"The time is over after {elapsed}: training stops.")


def _name(value: str | Enum) -> str:
    """Return the text that an enumeration's member stands for."""
    return str(value.value) if isinstance(value, Enum) else value


def _seconds(duration: Any) -> float | None:
    if duration is None:
        return None
    if isinstance(duration, str):
        found = re.fullmatch(r"(\d+):(\d\d):(\d\d):(\d\d)", duration.strip())
        if found:
            days, hours, minutes, seconds = map(int, found.groups())
            duration = timedelta(
                days=days, hours=hours, minutes=minutes, seconds=seconds
            )
    if isinstance(duration, Mapping):
        with suppress(TypeError):  # the message below says what is accepted
            duration = timedelta(**duration)
    if not isinstance(duration, timedelta):
        raise MisconfigurationException(
            f'`Timer(duration={duration!r})`: accepted are "DD:HH:MM:SS", such as '
            '"00:12:00:00" for half a day; a `timedelta`; or its arguments in a '
            'dictionary, such as {"hours": 12}'
        )
    return duration.total_seconds()
