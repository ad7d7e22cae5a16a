"""From metric slots to what loggers, callbacks and people read.

The only place where a logged value travels to the host.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightgen_runtime.utilities.rank_zero import rank_zero_warn

if TYPE_CHECKING:
    from lightgen_runtime.core.metric_slots import MetricSlot
    from lightgen_runtime.core.metrics import MetricStore
    from lightgen_runtime.loggers import Logger

    # Whose value, its key, the value, and whether callbacks can watch it.
    Published = tuple[MetricSlot, str, Tensor, bool]


class Report:
    """Metrics published so far in one run.

    Attributes:
        loggers: Where reports go; none in other processes than the first.
        active: The store that steps are filling now; None between stages.
        between_batches: Whether the active store stands before its first batch or
            behind its last, where reductions are read rather than single values.
    """

    def __init__(
        self, loggers: list[Logger], device: torch.device, alone: bool = True
    ) -> None:
        self.loggers = loggers
        self._saved: list[tuple[str, Any]] = []  # states of a checkpoint
        self.active: MetricStore | None = None
        self.between_batches = True
        self._device = device
        self._alone = alone
        self._callback: dict[str, Tensor] = {}
        self._logged: dict[str, Tensor] = {}
        self._bar: dict[str, Any] = {}

    def enter(self, store: MetricStore | None, between_batches: bool = True) -> None:
        """Make `store` the active one, at the start of its epoch or back in its middle."""
        if store is not self.active:
            self.publish()
        self.active = store
        self.between_batches = between_batches

    @property
    def callback_metrics(self) -> dict[str, Tensor]:
        """Everything that callbacks and schedulers can watch, now. No host sync."""
        self._watch(self._current())
        return self._callback

    @property
    def logged_metrics(self) -> dict[str, Tensor]:
        """What loggers are sent, by key, now. No host sync."""
        self._log(self._current())
        return self._logged

    @property
    def progress_bar_metrics(self) -> dict[str, float]:
        """What the progress bar shows. Cost: one host sync."""
        self._show(self._current())
        return read_floats(self._bar)

    def send(self, values: Mapping[str, Any], epoch: int | None, step: int) -> None:
        """Send values to every logger. Cost: one host sync, if there is a logger.

        Args:
            values: Numbers or 0-d tensors.
            epoch: Reported beside them, unless a value named "step" takes the place of
                the axis. None for the batches of an evaluation, which have their own.
            step: Where on the axis they stand.
        """
        if not values or not self.loggers:
            return
        self.restore_loggers()
        metrics: dict[str, float] = read_floats(values)
        if epoch is not None:
            if "step" in metrics:
                step = int(metrics.pop("step"))
            else:
                metrics.setdefault("epoch", epoch)
        for logger in self.loggers:
            logger.log_metrics(metrics, step)
            logger.save()

    def send_step(self, epoch: int | None, step: int) -> None:
        """Send the active store's per-step values."""
        if self.active is not None:
            values = self.active.step_values()
            self.send(_for_loggers(values), epoch, step)

    def send_epoch(self, epoch: int, step: int) -> None:
        """Publish the active store's per-epoch values and send them."""
        if self.active is not None:
            self.publish()
            self.send(_for_loggers(self.active.epoch_values()), epoch, step)

    def clear(self) -> None:
        """Forget everything published, as after a sanity check."""
        self._callback.clear()
        self._logged.clear()
        self._bar.clear()

    def state_dict(self) -> dict[str, Tensor]:
        """Return what schedulers and callbacks may still ask for after a resume."""
        return {
            key: value.detach().cpu().clone()
            for key, value in self.callback_metrics.items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take published metrics back."""
        self._callback.update({key: self._tensor(v) for key, v in state.items()})

    def published(self) -> list[dict[str, Any]]:
        """Return all metrics, for another process."""
        found = (self.callback_metrics, self.logged_metrics, self.progress_bar_metrics)
        return [
            {k: v.cpu() if isinstance(v, Tensor) else v for k, v in metrics.items()}
            for metrics in found
        ]

    def adopt(self, published: list[dict[str, Any]]) -> None:
        """Take the metrics of the process that has run."""
        own = (self._callback, self._logged, self._bar)
        for metrics, others in zip(own, published, strict=True):
            metrics.update(others)

    def states_of_loggers(self) -> list[dict[str, Any]]:
        """Write what loggers hold back; return how far each has come, by class.

        One that cannot write, as on a full disk, does not cost the checkpoint.
        """
        states = []
        for logger in self.loggers:
            state: dict[str, Any] = {}
            try:
                logger.save()
                state = logger.state_dict()
            except OSError as error:
                rank_zero_warn(
                    f"{type(logger).__name__} cannot write: {error}. The checkpoint does "
                    "not hold how far it has come: a run that is resumed from it may "
                    "record twice."
                )
            states.append({"class": type(logger).__qualname__, "state": state})
        return states

    def hold_states_of_loggers(self, states: list[dict[str, Any]]) -> None:
        """Keep the states of a checkpoint for `restore_loggers`."""
        self._saved = [(entry["class"], entry["state"]) for entry in states]

    def restore_loggers(self) -> None:
        """Let loggers drop, in the same places, what is about to be recorded again."""
        for logger, (kind, state) in zip(self.loggers, self._saved, strict=False):
            if kind == type(logger).__qualname__ and state:
                logger.load_state_dict(state)
        self._saved = []

    def publish(self) -> None:
        """Take over what the active store holds now. No host sync.

        Reading one kind of metrics takes over that kind alone, as in Lightning.
        """
        values = self._current()
        self._watch(values)
        self._log(values)
        self._show(values)

    def _watch(self, values: list[Published]) -> None:
        for slot, key, value, watchable in values:
            if watchable:
                self._callback[key] = value
                self._callback[f"{slot.name}{slot.suffix}"] = value

    def _log(self, values: list[Published]) -> None:
        for slot, key, value, _ in values:
            if slot.options.logger:
                self._logged[key] = value

    def _show(self, values: list[Published]) -> None:
        for slot, key, value, _ in values:
            if slot.options.prog_bar:
                self._bar[key] = value

    def _current(self) -> list[Published]:
        """Return what the active store holds now, and whether it can be watched."""
        store = self.active
        if store is None:
            return []
        # What a single batch of an evaluation gave is nothing to decide by.
        watchable = store.stage == "train"
        found = [
            (slot, key, self._tensor(value), watchable)
            for slot, key, value in store.step_values()
        ]
        if self.between_batches:
            found += [
                (slot, key, self._tensor(value), True)
                for slot, key, value in store.epoch_values(computes=self._alone)
                if slot.loader == store.loader or slot.agreed is not None
            ]
        return found

    def _tensor(self, value: Any) -> Tensor:
        if isinstance(value, Tensor):
            return value.detach().reshape(())
        return torch.tensor(value, dtype=torch.float32, device=self._device)


def read_floats(values: Mapping[str, Any]) -> dict[str, float]:
    """Return values as Python floats, with one transfer for each device involved."""
    floats: dict[str, float] = {}
    waiting: dict[torch.device, list[str]] = {}
    for key, value in values.items():
        floats[key] = 0.0
        if isinstance(value, Tensor) and value.device.type != "cpu":
            waiting.setdefault(value.device, []).append(key)
        else:
            floats[key] = float(value)
    for keys in waiting.values():
        stacked = torch.stack(
            [values[key].detach().reshape(()).float() for key in keys]
        )
        floats.update(zip(keys, stacked.tolist(), strict=True))
    return floats


def _for_loggers(
    values: Iterable[tuple[MetricSlot, str, Any]],
) -> dict[str, Any]:
    return {key: value for slot, key, value in values if slot.options.logger}
