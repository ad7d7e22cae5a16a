"""Reporting learning rates, momenta and weight decay to the loggers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer

from lightgen_runtime.callbacks.callback import Callback
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.rank_zero import rank_zero_warn

if TYPE_CHECKING:
    from lightgen_runtime.core.module import LightningModule
    from lightgen_runtime.trainer.trainer import Trainer


class LearningRateMonitor(Callback):
    """Send the learning rate of every parameter group to the loggers.

    Keys are "lr-" and the optimizer's class, or the "name" in the lr_scheduler
    dictionary; then "-1", "-2" for further optimizers of the class; then "/pg1", "/pg2"
    or a slash and the group's own "name" if there are several groups. Momenta and weight
    decay add "-momentum" and "-weight_decay" to that.

    Args:
        logging_interval: "step" reports before the batches that are due for logging,
            "epoch" at the start of each epoch. None reports each optimizer when its
            scheduler steps, and one without a scheduler at both times.
        log_momentum: Also report momentum, or the first beta.
        log_weight_decay: Also report weight decay.

    Raises:
        MisconfigurationException: At construction for an unknown interval; at the start
            of a fit without a logger, or for two groups of one name.

    Cost: one call a batch.
    """

    def __init__(
        self,
        logging_interval: str | None = None,
        log_momentum: bool = False,
        log_weight_decay: bool = False,
    ) -> None:
        if logging_interval not in (None, "step", "epoch"):
            raise MisconfigurationException(
                f"`LearningRateMonitor(logging_interval={logging_interval!r})`: accepted "
                "are 'step', 'epoch' and None"
            )
        self.logging_interval = logging_interval
        self.log_momentum = log_momentum
        self.log_weight_decay = log_weight_decay
        self.lrs: dict[str, list[float]] = {}
        self.last_momentum_values: dict[str, float | None] = {}
        self.last_weight_decay_values: dict[str, float | None] = {}
        self._every = 0  # optimizer steps between two reports; 0 for none by steps

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out what there is to report."""
        if not trainer.loggers:
            raise MisconfigurationException(
                "`LearningRateMonitor` with `Trainer(logger=False)` has nowhere to report "
                "to: add a logger or remove the callback"
            )
        if self.log_momentum and not all(
            key in optimizer.defaults
            for optimizer in trainer.optimizers
            for key in [_momentum_key(optimizer)]
        ):
            rank_zero_warn(
                "`LearningRateMonitor(log_momentum=True)`: an optimizer has no momentum; "
                "0 is reported for it"
            )
        by_step = self.logging_interval != "epoch"
        self._every = trainer.log_every_n_steps if by_step else 0
        names = [key for key, *_ in _named_groups(trainer)]
        self.lrs = {name: [] for name in names}
        self.last_momentum_values = {f"{name}-momentum": None for name in names}
        self.last_weight_decay_values = {f"{name}-weight_decay": None for name in names}

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Report, if this step will be reported."""
        every = self._every
        if every and (
            (trainer.progress.batches_that_stepped + 1) % every == 0
            or trainer.should_stop
        ):
            self._report(trainer, "step")

    def on_train_epoch_start(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> None:
        """Report the epoch's beginning."""
        if self.logging_interval != "step":
            self._report(trainer, "epoch")

    def _report(self, trainer: Trainer, interval: str) -> None:
        values: dict[str, float] = {}
        for name, optimizer, group, owner in _named_groups(trainer):
            if self.logging_interval is None and owner not in (None, interval):
                continue
            rate = float(group["lr"])
            self.lrs.setdefault(name, []).append(rate)
            values[name] = rate
            if self.log_momentum:
                key = _momentum_key(optimizer)
                found = group.get(key, 0)
                momentum = float(found[0] if key == "betas" and found else found)
                self.last_momentum_values[f"{name}-momentum"] = momentum
                values[f"{name}-momentum"] = momentum
            if self.log_weight_decay:
                decay = float(group.get("weight_decay", 0.0))
                self.last_weight_decay_values[f"{name}-weight_decay"] = decay
                values[f"{name}-weight_decay"] = decay
        if not values:
            return
        for logger in trainer.loggers if trainer.is_global_zero else ():
            logger.log_metrics(values, step=trainer.progress.batches_that_stepped)
        device = trainer.strategy.root_device
        trainer.callback_metrics.update(
            {name: torch.tensor(value, device=device) for name, value in values.items()}
        )


def _named_groups(
    trainer: Trainer,
) -> Iterator[tuple[str, Optimizer, dict[str, Any], str | None]]:
    """Yield (key, optimizer, group, interval of its scheduler or None)."""
    seen: Counter[type[Optimizer]] = Counter()
    scheduled = []
    for config in trainer.lr_scheduler_configs:
        optimizer = config.scheduler.optimizer
        scheduled.append(optimizer)
        name = _optimizer_name(optimizer, seen, config.name)
        for key, group in _with_keys(name, optimizer):
            yield key, optimizer, group, config.interval
    for optimizer in trainer.optimizers:
        if not any(optimizer is other for other in scheduled):
            name = _optimizer_name(optimizer, seen, None)
            for key, group in _with_keys(name, optimizer):
                yield key, optimizer, group, None


def _optimizer_name(
    optimizer: Optimizer, seen: Counter[type[Optimizer]], given: str | None
) -> str:
    kind = type(optimizer)
    if given is None:
        seen[kind] += 1
    number = seen[kind] - 1
    suffix = f"-{number}" if number > 0 else ""
    return f"{given or f'lr-{kind.__name__}'}{suffix}"


def _with_keys(name: str, optimizer: Optimizer) -> Iterator[tuple[str, dict[str, Any]]]:
    groups = optimizer.param_groups
    keys = [
        f"{name}/{group.get('name', f'pg{number}')}" if len(groups) > 1 else name
        for number, group in enumerate(groups, 1)
    ]
    for key, count in Counter(keys).items():
        if count > 1:
            raise MisconfigurationException(
                f"`LearningRateMonitor`: {count} parameter groups would be reported as "
                f'{key!r}. Give each group a "name" of its own, or none.'
            )
    yield from zip(keys, groups, strict=True)


def _momentum_key(optimizer: Optimizer) -> str:
    return "betas" if "betas" in optimizer.defaults else "momentum"
