"""Making what was logged the same in every process.

`self.log` never talks to other processes. Here all values of a store are exchanged at
once, in double precision, at moments that every process reaches: epoch ends, and for
single steps the reports to the loggers. Values of smaller groups travel to all as well:
a process cannot know which groups the others have logged for.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from lightgen_runtime.core.metric_slots import (
    SLOT_TYPES,
    LogOptions,
    MetricSlot,
    ObjectSlot,
)
from lightgen_runtime.core.metrics import MetricStore
from lightgen_runtime.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from torch import nn

    from lightgen_runtime.strategies import Strategy


class Logged(NamedTuple):
    """What one process has logged under one key.

    Attributes:
        hook: Where it was logged.
        loader: For which of several loaders.
        name: The key.
        suffix: What is added to it in reports.
        options: How it was logged.
        site: Where, as `file:line`.
        group: The processes to reduce over; None for all.
        attribute: Of a metric object its path in the module, else None.
        total: Its running reduction; of an object 0.
        weight: How much that counts in a mean.
    """

    hook: str
    loader: int | None
    name: str
    suffix: str
    options: LogOptions
    site: str
    group: tuple[int, ...] | None
    attribute: str | None
    total: float
    weight: float

    @property
    def key(self) -> tuple[str, int | None, str]:
        """What names the same metric in every process."""
        return self.hook, self.loader, self.name

    @property
    def place(self) -> tuple[str, int | None, tuple[int, ...] | None]:
        """Where the processes of one group log the same keys."""
        return self.hook, self.loader, self.group


def agree_on_epoch(store: MetricStore, strategy: Strategy, module: nn.Module) -> None:
    """Replace each epoch value by the reduction over all processes.

    Means are weighted by samples. A process that logged nothing in a hook, because no
    batch came its way, gets the others' values. Objects of torchmetrics are reduced by
    themselves. Collective: every process calls it.

    Raises:
        MisconfigurationException: A key logged with `sync_dist=True` is missing in a
            process that logged others in the same hook.
    """
    if strategy.world_size == 1:
        return
    fresh = slots_of_epoch(store)
    # One number: an exchange of what nobody has logged would cost ten times as much.
    if not strategy.reduce_boolean_decision(bool(fresh), all=False):
        return
    known = {(slot.hook, slot.loader, slot.name): slot for slot in store.slots}
    totals = [0.0 if isinstance(slot, ObjectSlot) else slot.total for slot in fresh]
    logged = _logged(fresh, totals, [slot.weight for slot in fresh], strategy, module)
    for key, entries in _exchange(logged, strategy).items():
        slot = known.get(key)
        if slot is None:
            slot = _opened(store, entries[0])
        if entries[0].attribute is None:
            slot.agreed = _reduced(entries)
            continue
        if not slot.weight:  # an object that this process has not updated
            slot.last = _object_at(module, entries[0])
            slot.weight = 1.0
        slot.agreed = slot.result()


def slots_of_epoch(store: MetricStore) -> list[MetricSlot]:
    """Return what this process has logged for `agree_on_epoch` since the last one."""
    return [
        slot
        for slot in store.slots
        if slot.options.on_epoch
        and slot.weight
        and slot.agreed is None
        and not slot.options.rank_zero_only
    ]


def agree_on_step(store: MetricStore, strategy: Strategy) -> None:
    """Replace the last value of each key logged with `sync_dist=True` by the reduction.

    Collective: every process calls it. Errors are those of `agree_on_epoch`.
    """
    if strategy.world_size == 1:
        return
    slots = slots_of_step(store)
    values, weights = [slot.last for slot in slots], [1.0] * len(slots)
    found = _exchange(_logged(slots, values, weights, strategy), strategy)
    for slot in slots:
        slot.last = _reduced(found[slot.hook, slot.loader, slot.name])


def slots_of_step(store: MetricStore) -> list[MetricSlot]:
    """Return what this process has logged for `agree_on_step`."""
    return [
        slot
        for slot in store.slots
        if slot.options.on_step
        and slot.options.sync_dist
        and slot.last is not None
        and not slot.options.rank_zero_only
        and not isinstance(slot, ObjectSlot)
    ]


def _logged(
    slots: list[MetricSlot],
    totals: list[Any],
    weights: list[float],
    strategy: Strategy,
    module: nn.Module | None = None,
) -> list[Logged]:
    paths: dict[int, str] = {}
    if module is not None and any(isinstance(slot, ObjectSlot) for slot in slots):
        paths = {id(part): path for path, part in module.named_modules()}
    entries = []
    for slot, total, weight in zip(slots, _doubles(totals), weights, strict=True):
        group, attribute = strategy.ranks_of(slot.sync_group), None
        if isinstance(slot, ObjectSlot):  # which knows its own group
            group, attribute = None, paths.get(id(slot.last), "")
        call = (slot.hook, slot.loader, slot.name, slot.suffix, slot.options, slot.site)
        entries.append(Logged(*call, group, attribute, total, weight))
    return entries


def _exchange(
    logged: list[Logged], strategy: Strategy
) -> dict[tuple[str, int | None, str], list[Logged]]:
    """Return what concerns this process, by key, in an order that all agree on."""
    by_rank: list[list[Logged]] = strategy.gather_objects(logged)
    _check_keys(by_rank)
    own = {entry.key: entry.group for entry in logged}
    found: dict[tuple[str, int | None, str], list[Logged]] = {}
    for entry in chain.from_iterable(by_rank):
        member = entry.group is None or strategy.global_rank in entry.group
        if member and entry.group == own.get(entry.key, entry.group):
            found.setdefault(entry.key, []).append(entry)
    return found


def _check_keys(by_rank: list[list[Logged]]) -> None:
    places = {e.place for entries in by_rank for e in entries}
    for place in sorted(places, key=str):
        here = [[e for e in entries if e.place == place] for entries in by_rank]
        wanted = {
            e.name: f"{e.name!r} (process {rank} does, at {e.site or 'an unknown line'})"
            for rank, entries in enumerate(here)
            for e in entries
            if e.options.sync_dist
        }
        for rank, entries in enumerate(here):
            missing = sorted(wanted.keys() - {entry.name for entry in entries})
            if entries and missing:
                own = [f"{e.name!r} at {e.site}" for e in entries]
                raise MisconfigurationException(
                    f"`self.log(..., sync_dist=True)` inside `{place[0]}`: process {rank} "
                    f"of {len(by_rank)} has not logged "
                    f"{', '.join(wanted[name] for name in missing)}, but "
                    f"{', '.join(own)}. Log the same keys in every process; or pass "
                    "rank_zero_only=True for a key that the first one alone logs."
                )


def _opened(store: MetricStore, entry: Logged) -> MetricSlot:
    """Give a key that only other processes have logged its slot here."""
    kind = (
        SLOT_TYPES[entry.options.reduce_fx] if entry.attribute is None else ObjectSlot
    )
    return store.adopt(
        entry.hook, entry.loader, entry.name, entry.suffix, entry.options, kind
    )


def _object_at(module: nn.Module, entry: Logged) -> Any:
    if not entry.attribute:
        raise MisconfigurationException(
            f"the metric object logged as {entry.name!r} is no part of "
            f"{type(module).__name__}, so a process without a batch cannot find it. Make "
            "it an attribute of the module."
        )
    return module.get_submodule(entry.attribute)


def _mean(entries: list[Logged]) -> float:
    return sum(e.total for e in entries) / sum(e.weight for e in entries)


_REDUCTIONS: dict[str, Callable[[list[Logged]], float]] = {
    "mean": _mean,
    "sum": lambda entries: sum(entry.total for entry in entries),
    "max": lambda entries: max(entry.total for entry in entries),
    "min": lambda entries: min(entry.total for entry in entries),
}


def _reduced(entries: list[Logged]) -> float:
    return _REDUCTIONS[entries[0].options.reduce_fx](entries)


def _doubles(values: list[Any]) -> list[float]:
    """Return values as Python floats, with one transfer if they are on a device."""
    devices = {value.device for value in values if isinstance(value, Tensor)}
    if all(device.type == "cpu" for device in devices):
        return [float(value) for value in values]
    device = next(device for device in devices if device.type != "cpu")
    parts = [
        torch.as_tensor(v, dtype=torch.float64, device=device).reshape(())
        for v in values
    ]
    read: list[float] = torch.stack(parts).tolist()
    return read
