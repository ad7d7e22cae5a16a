"""When a monitored metric is final, and what to say when nobody logs it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lightgen_runtime.utilities.nearest import nearest

if TYPE_CHECKING:
    from lightgen_runtime.trainer.trainer import Trainer


def validates(trainer: Trainer) -> bool:
    """Tell whether this fit has anything to validate with, without loading it."""
    return trainer.enable_validation


def epoch_end_has_metrics(trainer: Trainer) -> bool:
    """Tell whether the end of a training epoch is where fresh metrics are.

    Otherwise validation runs in mid-epoch, or not in every epoch, and its end is.
    """
    if not validates(trainer):
        return True
    return trainer.check_val_every_n_epoch == 1 and trainer.val_check_interval == 1.0


def validation_follows(trainer: Trainer) -> bool:
    """Tell, at a batch's end, whether it ends its epoch and validation follows."""
    if not trainer.is_last_batch or trainer.validating or not validates(trainer):
        return False
    every, progress = trainer.check_val_every_n_epoch, trainer.progress
    interval = trainer.val_check_batch or float("inf")
    if every is None:
        return progress.total_batches % interval == 0
    in_epoch = interval == float("inf") or progress.batch_idx % interval == 0
    return in_epoch and (trainer.current_epoch + 1) % every == 0


def missing_metric_message(owner: str, monitor: str, logged: Iterable[str]) -> str:
    """Say that `monitor` was not logged, what was, and which name is nearest."""
    names = sorted(logged)
    near = nearest(monitor, names)
    return (
        f"`{owner}(monitor={monitor!r})`: no metric of that name was logged. Logged "
        f"were: {', '.join(names) or 'none at all'}."
        + (f" Nearest name: `{near}`." if near else "")
    )
