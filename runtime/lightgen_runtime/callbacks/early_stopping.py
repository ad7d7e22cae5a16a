"""Ending a run when a metric says that going on is of no use."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from lightgen_runtime.callbacks.callback import Callback
from lightgen_runtime.callbacks.monitored import (
    epoch_end_has_metrics,
    missing_metric_message,
)
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.rank_zero import rank_zero_info, rank_zero_warn

if TYPE_CHECKING:
    from lightgen_runtime.core.module import LightningModule
    from lightgen_runtime.trainer.trainer import Trainer


class EarlyStoppingReason(IntEnum):
    """Why training was stopped."""

    NOT_STOPPED = 0
    STOPPING_THRESHOLD = 1
    DIVERGENCE_THRESHOLD = 2
    PATIENCE_EXHAUSTED = 3
    NON_FINITE_METRIC = 4


class EarlyStopping(Callback):
    """Stop training when a logged metric stops improving.

    Args:
        monitor: Name of the metric.
        min_delta: The least change that counts as an improvement, in the metric's unit.
        patience: Stop after so many checks in a row without improvement. A check is a
            validation, or an epoch's end without one: not necessarily an epoch.
        verbose: Tell about each improvement.
        mode: `min` or `max`: which end of the metric is good.
        strict: Raise when nobody logged the metric; else only warn.
        check_finite: Stop when the metric is NaN or infinite.
        stopping_threshold: Stop as soon as the metric is better than this.
        divergence_threshold: Stop as soon as the metric is worse than this.
        check_on_train_epoch_end: Check at the end of the training epoch (true) or of
            validation (false); `None` chooses validation where there is one in mid-epoch
            or not in every epoch.
        log_rank_zero_only: Without effect.

    Compat: all processes stop for the same reason, and rank zero tells it.

    Raises:
        MisconfigurationException: At construction for an unknown `mode` or a negative
            `patience`; during the run when nobody logs `monitor` and `strict` is set.
    """

    mode_dict: ClassVar[dict[str, Callable[..., Tensor]]] = {
        "min": torch.lt,
        "max": torch.gt,
    }
    order_dict: ClassVar[dict[str, str]] = {"min": "<", "max": ">"}

    def __init__(
        self,
        monitor: str,
        min_delta: float = 0.0,
        patience: int = 3,
        verbose: bool = False,
        mode: str = "min",
        strict: bool = True,
        check_finite: bool = True,
        stopping_threshold: float | None = None,
        divergence_threshold: float | None = None,
        check_on_train_epoch_end: bool | None = None,
        log_rank_zero_only: bool = False,
    ) -> None:
        if mode not in ("min", "max"):
            raise MisconfigurationException(
                f"`mode={mode!r}` is not accepted. Use `min` when a smaller `{monitor}` "
                "is better, else `max`."
            )
        if patience < 0:
            raise MisconfigurationException(
                f"`patience={patience}` is not accepted. Use the number of checks "
                "without improvement to wait for, 0 or more."
            )
        self.monitor = monitor
        # Signed, so that subtracting it makes a value worse in either mode.
        self.min_delta = min_delta if mode == "max" else -min_delta
        self.patience = patience
        self.verbose = verbose
        self.mode = mode
        self.strict = strict
        self.check_finite = check_finite
        self.stopping_threshold = stopping_threshold
        self.divergence_threshold = divergence_threshold
        self.log_rank_zero_only = log_rank_zero_only
        self._check_on_train_epoch_end = check_on_train_epoch_end

        self.wait_count = 0
        self.stopped_epoch = 0
        self.best_score = torch.tensor(torch.inf if mode == "min" else -torch.inf)
        self.stopping_reason = EarlyStoppingReason.NOT_STOPPED
        self.stopping_reason_message: str | None = None

    @property
    def monitor_op(self) -> Callable[..., Tensor]:
        """The comparison that tells whether its first argument is the better one."""
        return self.mode_dict[self.mode]

    @property
    def state_key(self) -> str:
        """Tell apart several early stopping callbacks of one run."""
        return self._generate_state_key(monitor=self.monitor, mode=self.mode)

    def state_dict(self) -> dict[str, Any]:
        """Return the best score and how long it has stood."""
        return {
            "wait_count": self.wait_count,
            "stopped_epoch": self.stopped_epoch,
            "best_score": self.best_score,
            "patience": self.patience,
            "stopping_reason": self.stopping_reason.value,
            "stopping_reason_message": self.stopping_reason_message,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting where the checkpoint was written."""
        self.wait_count = state_dict["wait_count"]
        self.stopped_epoch = state_dict["stopped_epoch"]
        self.best_score = state_dict["best_score"]
        self.patience = state_dict["patience"]
        # Files written before Lightning 2.6 have no reason.
        self.stopping_reason = EarlyStoppingReason(state_dict.get("stopping_reason", 0))
        self.stopping_reason_message = state_dict.get("stopping_reason_message")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check, if this is the place."""
        if self._checks_at_epoch_end(trainer):
            self._check(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check, if this is the place."""
        if not trainer.sanity_checking and not self._checks_at_epoch_end(trainer):
            self._check(trainer)

    def _checks_at_epoch_end(self, trainer: Trainer) -> bool:
        if self._check_on_train_epoch_end is not None:
            return self._check_on_train_epoch_end
        return epoch_end_has_metrics(trainer)

    def _check(self, trainer: Trainer) -> None:
        if trainer.state.fn != "fit" or trainer.fast_dev_run:
            return
        current = trainer.callback_metrics.get(self.monitor)
        verdict = None
        if current is not None:
            # A copy: the tensor that was logged may be a running sum.
            verdict = self._judge(current.detach().squeeze().to("cpu", copy=True))
        verdicts = [
            v for v in trainer.strategy.gather_objects(verdict) if v is not None
        ]
        if not verdicts:
            self._report_missing(trainer)
            return
        # The first process that wants to stop speaks for all.
        reason, message = max(verdicts, key=lambda verdict: verdict[0] > 0)
        if reason is not EarlyStoppingReason.NOT_STOPPED:
            trainer.should_stop = True
            self.stopped_epoch = trainer.current_epoch
            self.stopping_reason = reason
            self.stopping_reason_message = message
        if message and (reason is not EarlyStoppingReason.NOT_STOPPED or self.verbose):
            rank_zero_info(message)

    def _judge(self, current: Tensor) -> tuple[EarlyStoppingReason, str]:
        """Count `current` in; return whether to stop and what to say about it."""
        name, value, best = self.monitor, float(current), float(self.best_score)
        if self.check_finite and not torch.isfinite(current):
            return (
                EarlyStoppingReason.NON_FINITE_METRIC,
                f"`{name}` is {value}: stopping. Its best value was {best:.3f}.",
            )
        limit = self.stopping_threshold
        if limit is not None and self.monitor_op(current, limit):
            return (
                EarlyStoppingReason.STOPPING_THRESHOLD,
                f"`{name}` = {value:.5g} {self.order_dict[self.mode]} the goal {limit}: stopping.",
            )
        limit = self.divergence_threshold
        if limit is not None and self.monitor_op(-current, -limit):
            return (
                EarlyStoppingReason.DIVERGENCE_THRESHOLD,
                f"`{name}` = {value:.5g} is worse than the limit {limit}: stopping.",
            )
        if self.monitor_op(current - self.min_delta, self.best_score):
            gain = f" by {abs(best - value):.3f}" if abs(best) != torch.inf else ""
            self.best_score = current
            self.wait_count = 0
            return (
                EarlyStoppingReason.NOT_STOPPED,
                f"`{name}` improved{gain} to {value:.3f}.",
            )
        self.wait_count += 1
        if self.wait_count >= self.patience:
            return (
                EarlyStoppingReason.PATIENCE_EXHAUSTED,
                f"`{name}` did not improve in the last {self.wait_count} checks: "
                f"stopping. Its best value was {best:.3f}.",
            )
        return EarlyStoppingReason.NOT_STOPPED, ""

    def _report_missing(self, trainer: Trainer) -> None:
        message = missing_metric_message(
            "EarlyStopping", self.monitor, trainer.callback_metrics
        )
        if self.strict:
            raise MisconfigurationException(
                f"{message} Monitor one of these, or pass `strict=False`."
            )
        rank_zero_warn(f"{message} Nothing can be stopped by it.")
