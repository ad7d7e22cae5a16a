"""What `self.log` fills and loggers read: one slot for each logged key.

`log` finds its slot by name in the running hook's scope and updates it; everything about
the call is checked once, when the slot is opened. Updating never reads a tensor back to
the host, moves it, or talks to other processes. Reading does, and happens only where the
loop is due to report: every `log_every_n_steps` and at epoch ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightgen_runtime.core.metric_slots import (
    SLOT_TYPES,
    LogOptions,
    MetricSlot,
    ObjectSlot,
    check_value,
    copied,
    is_metric_object,
)
from lightgen_runtime.utilities.call_site import call_site
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.nearest import did_you_mean


class LogRule(NamedTuple):
    """What `self.log` does inside one hook.

    Attributes:
        on_step: Default when the call says nothing.
        on_epoch: Likewise.
        step_allowed: Whether `on_step=True` makes sense there.
        allowed: Whether logging is possible at all.
    """

    on_step: bool
    on_epoch: bool
    step_allowed: bool = True
    allowed: bool = True


FORBIDDEN = LogRule(False, False, step_allowed=False, allowed=False)


# What `LightningModule.log` hands on of its call, in this order.
CALL_ARGUMENTS = (
    "prog_bar",
    "logger",
    "on_step",
    "on_epoch",
    "reduce_fx",
    "enable_graph",
    "sync_dist",
    "sync_dist_group",
    "add_dataloader_idx",
    "metric_attribute",
    "rank_zero_only",
)


class LogContext:
    """Where the run stands, as far as `self.log` needs to know.

    The loops assign these; `log` only reads them.
    """

    __slots__ = ("batch", "batch_size", "keep", "scope")

    def __init__(self, scope: LogScope) -> None:
        self.scope = scope
        self.batch: Any = None
        self.batch_size: int | None = None
        # Whether this step's values will be reported: only then is a copy worth taking
        # against in-place changes of the logged tensor later in the same step.
        self.keep = True

    def size_of_batch(self) -> int:
        """Return the current batch's size, found once a batch."""
        if self.batch_size is None:
            self.batch_size = find_batch_size(self.batch)
        return self.batch_size

    def leave_batch(self) -> None:
        """Note that what is logged from here on belongs to no batch, and weighs one."""
        self.batch = self.batch_size = None


class LogScope:
    """The slots of one hook of one stage."""

    __slots__ = ("_by_loader", "hook", "loader", "rule", "slots", "store")

    def __init__(self, hook: str, rule: LogRule, store: MetricStore) -> None:
        self.hook = hook
        self.rule = rule
        self.store = store
        self.loader: int | None = None
        self.slots: dict[str, MetricSlot] = {}
        self._by_loader: dict[int | None, dict[str, MetricSlot]] = {None: self.slots}

    def select(self, loader: int | None) -> None:
        """Let following calls of `log` belong to this loader (None: the only one)."""
        self.loader = loader
        self.slots = self._by_loader.setdefault(loader, {})

    def clear(self) -> None:
        """Forget every slot."""
        self._by_loader.clear()
        self.select(None)

    def open(self, name: str, value: Any, call: tuple[Any, ...]) -> MetricSlot:
        """Check a call site on its first use and give it a slot.

        Raises:
            MisconfigurationException: Logging is not possible here, or not like this.
        """
        restored = self.slots.get(name)
        if restored is not None and restored.call is None:
            # From a checkpoint: it goes on if the code still asks for the same.
            if restored.options == resolve_options(
                name, value, call, self.hook, self.rule
            ):
                restored.call, restored.site = call, call_site()
                return restored
            self.store.slots.remove(restored)
        elif restored is not None:
            raise MisconfigurationException(
                f"`self.log({name!r}, ...)` was called twice in `{self.hook}` with "
                f"different arguments: {_differences(restored.call, call)}. Use the same "
                "arguments in both calls, or another name for one of them."
            )
        options = resolve_options(name, value, call, self.hook, self.rule)
        if not isinstance(name, str) or "/dataloader_idx_" in name:
            raise MisconfigurationException(
                f"`self.log({name!r}, ...)`: a name is a string without "
                "`/dataloader_idx_`, which is added to it where there are several loaders"
            )
        suffix = ""
        add_dataloader_idx = call[8]
        others = [s for s in self._by_loader.values() if s is not self.slots]
        if self.loader is not None and add_dataloader_idx:
            suffix = f"/dataloader_idx_{self.loader}"
        elif any(name in slots for slots in others):
            raise MisconfigurationException(
                f"`self.log({name!r}, add_dataloader_idx=False)` in `{self.hook}` was "
                "called for several loaders, whose values would be mixed. Log under "
                "another name for each, or leave `add_dataloader_idx` out."
            )
        kind = ObjectSlot if is_metric_object(value) else SLOT_TYPES[options.reduce_fx]
        slot = self.add(name, suffix, call, options, kind)
        slot.site = call_site()
        return slot

    def add(
        self,
        name: str,
        suffix: str,
        call: tuple[Any, ...] | None,
        options: LogOptions,
        kind: type[MetricSlot],
    ) -> MetricSlot:
        """Add a slot to the selected loader's. A `call` of None adopts the next call's."""
        slot = kind(name, suffix, call, options, self)
        self.slots[name] = slot
        self.store.slots.append(slot)
        return slot


def _differences(first: tuple[Any, ...] | None, second: tuple[Any, ...]) -> str:
    """Name the arguments of two calls that differ, with both values."""
    pairs = zip(CALL_ARGUMENTS, first or (), second, strict=True)
    return ", ".join(f"{n}={a!r} and {n}={b!r}" for n, a, b in pairs if a != b)


_REDUCERS: dict[Callable[..., Any], str] = {
    torch.mean: "mean",
    torch.sum: "sum",
    torch.max: "max",
    torch.min: "min",
    max: "max",
    min: "min",
    sum: "sum",
}


class MetricStore:
    """All slots of one stage, in the order in which their keys were first logged."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.loader: int | None = None
        self.slots: list[MetricSlot] = []
        self._scopes: dict[str, LogScope] = {}

    def scope(self, hook: str, rule: LogRule) -> LogScope:
        """Return the scope of a hook, the same object every time."""
        scope = self._scopes.get(hook)
        if scope is None:
            scope = self._scopes[hook] = LogScope(hook, rule, self)
        return scope

    def select(self, loader: int | None) -> None:
        """Point every scope at one loader's slots."""
        self.loader = loader
        for scope in self._scopes.values():
            scope.select(loader)

    @property
    def reports_steps(self) -> bool:
        """Whether any key is reported per step."""
        return any(slot.options.on_step for slot in self.slots)

    def reset(self) -> None:
        """Start a new epoch: keys stay, values are gone."""
        for slot in self.slots:
            slot.reset()

    def clear(self) -> None:
        """Forget every key."""
        self.reset()
        self.slots.clear()
        for scope in self._scopes.values():
            scope.clear()

    def state_dict(self) -> list[dict[str, Any]]:
        """Return every slot as plain data."""
        kept = [slot for slot in self.slots if not isinstance(slot, ObjectSlot)]
        return [slot.state_dict() for slot in kept]

    def load_state_dict(
        self, state: list[dict[str, Any]], device: torch.device
    ) -> None:
        """Take running reductions back, for hooks that somebody still listens to."""
        for entry in state:
            if entry["hook"] not in self._scopes:
                continue
            options = LogOptions(**entry["options"])
            slot = self.adopt(
                entry["hook"],
                entry["loader"],
                entry["name"],
                entry["suffix"],
                options,
                SLOT_TYPES[options.reduce_fx],
            )
            slot.last = copied(entry["last"], device)
            slot.total = copied(entry["total"], device)
            slot.weight = entry["weight"]

    def adopt(
        self,
        hook: str,
        loader: int | None,
        name: str,
        suffix: str,
        options: LogOptions,
        kind: type[MetricSlot],
    ) -> MetricSlot:
        """Add a slot that was filled elsewhere; the next call of `log` may go on with it.

        Arguments are what `MetricSlot` has under the same names.
        """
        scope = self.scope(hook, LogRule(on_step=False, on_epoch=True))
        former = scope.loader
        scope.select(loader)
        slot = scope.add(name, suffix, None, options, kind)
        scope.select(former)
        return slot

    def step_values(self) -> Iterator[tuple[MetricSlot, str, Any]]:
        """Yield (slot, key, last value) of what the current loader reports per step."""
        for slot in self.slots:
            if slot.loader != self.loader:
                continue
            if slot.options.on_step and slot.last is not None:
                value = slot.step_result()
                forked = "_step" if slot.options.on_epoch else ""
                if value is not None:
                    yield slot, f"{slot.name}{forked}{slot.suffix}", value

    def epoch_values(
        self, computes: bool = True
    ) -> Iterator[tuple[MetricSlot, str, Any]]:
        """Yield (slot, key, reduction) of what is reported per epoch and was logged.

        Args:
            computes: Whether objects of torchmetrics may be asked, which talk to other
                processes then; otherwise only those whose value is agreed on are there.
        """
        for slot in self.slots:
            if slot.agreed is None and isinstance(slot, ObjectSlot) and not computes:
                continue
            if slot.options.on_epoch and (slot.weight or slot.agreed is not None):
                forked = "_epoch" if slot.options.on_step else ""
                value = slot.result() if slot.agreed is None else slot.agreed
                yield slot, f"{slot.name}{forked}{slot.suffix}", value


def resolve_options(
    name: str, value: Any, call: tuple[Any, ...], hook: str, rule: LogRule
) -> LogOptions:
    """Turn the arguments of a `self.log` call into what it means in this hook.

    Raises:
        MisconfigurationException: The call is not possible there.
    """
    prog_bar, logger, on_step, on_epoch, reduce_fx, enable_graph = call[:6]
    if not isinstance(name, str):
        raise MisconfigurationException(
            f"`self.log` got {type(name).__name__} as the name of a metric, in `{hook}`; it "
            "is called as `self.log(name, value)`"
        )
    if not rule.allowed:
        raise MisconfigurationException(
            f"`self.log({name!r}, ...)` inside `{hook}`: nothing is reported from there. "
            "Log in a step or an epoch hook instead, for example `on_train_epoch_end`."
        )
    if on_step and not rule.step_allowed:
        raise MisconfigurationException(
            f"`self.log({name!r}, on_step=True)` inside `{hook}`: there is no step there. "
            "Leave `on_step` out; the value is reported once an epoch."
        )
    check_value(name, value)
    resolved_step = rule.on_step if on_step is None else bool(on_step)
    resolved_epoch = rule.on_epoch if on_epoch is None else bool(on_epoch)
    if not resolved_step and not resolved_epoch:
        raise MisconfigurationException(
            f"`self.log({name!r}, on_step=False, on_epoch=False)` inside `{hook}` reports "
            "nothing. Set one of the two to True."
        )
    return LogOptions(
        on_step=resolved_step,
        on_epoch=resolved_epoch,
        prog_bar=bool(prog_bar),
        logger=True if logger is None else bool(logger),
        reduce_fx=_reducer(name, reduce_fx),
        enable_graph=bool(enable_graph),
        sync_dist=bool(call[6]),
        rank_zero_only=bool(call[10]),
    )


def find_batch_size(batch: Any) -> int:
    """Return the first dimension of the first tensor in a batch, searched depth first.

    Args:
        batch: Tensors in any nesting of mappings, sequences and dataclass-like objects.
            A tensor without dimensions counts as one sample; so does a batch with none.
    """
    size = _first_size(batch)
    return 1 if size is None else size


def _first_size(batch: Any) -> int | None:
    if isinstance(batch, Tensor):
        return batch.shape[0] if batch.ndim else 1
    if isinstance(batch, str):
        return len(batch)
    if isinstance(batch, Mapping):
        batch = batch.values()
    elif hasattr(batch, "__dataclass_fields__"):
        batch = [getattr(batch, name) for name in batch.__dataclass_fields__]
    elif not isinstance(batch, (list, tuple)):
        return None
    for part in batch:
        size = _first_size(part)
        if size is not None:
            return size
    return None


def _reducer(name: str, reduce_fx: Any) -> str:
    chosen = _REDUCERS.get(reduce_fx, reduce_fx) if callable(reduce_fx) else reduce_fx
    if isinstance(chosen, str):
        chosen = {"avg": "mean"}.get(chosen.lower(), chosen.lower())
        if chosen in SLOT_TYPES:
            return chosen
    raise MisconfigurationException(
        f"`self.log({name!r}, reduce_fx={reduce_fx!r})`: only "
        f"{', '.join(map(repr, SLOT_TYPES))} are accepted."
        f"{did_you_mean(chosen, SLOT_TYPES)}"
    )
