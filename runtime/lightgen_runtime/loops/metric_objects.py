"""The states of torchmetrics' objects, which are no part of a module's weights."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from lightgen_runtime.core.metric_slots import LogOptions, ObjectSlot
from lightgen_runtime.core.metrics import MetricStore
from lightgen_runtime.utilities.move_data import move_data_to_device
from lightgen_runtime.utilities.rank_zero import rank_zero_warn


def states_of_objects(
    module: nn.Module, stores: Mapping[str, MetricStore]
) -> dict[str, Any]:
    """Return what a module's metric objects have gathered, and under which keys.

    Args:
        module: Its objects are found as its submodules.
        stores: What was logged, by stage.
    """
    objects = dict(_objects(module))
    names = {id(found): name for name, found in objects.items()}
    return {
        "gathered": {
            name: {
                "updates": found.update_count,
                "values": dict(found.metric_state),
                "last": found._forward_cache,
            }
            for name, found in objects.items()
            if found.update_count
        },
        "logged": [
            {
                "stage": stage,
                "object": names[id(slot.last)],
                "place": [slot.hook, slot.loader, slot.name, slot.suffix],
                "options": slot.options._asdict(),
            }
            for stage, store in stores.items()
            for slot in store.slots
            if isinstance(slot, ObjectSlot) and id(slot.last) in names
        ],
    }


def restore_objects(
    module: nn.Module,
    stores: Mapping[str, MetricStore],
    states: list[dict[str, Any]],
) -> None:
    """Take back what `states_of_objects` found, as far as the objects are there.

    Args:
        module: As there.
        stores: As there.
        states: Of one process, or of several that this one takes over from.
    """
    objects = dict(_objects(module))
    gathered: dict[str, list[dict[str, Any]]] = {}
    for state in states:
        for name, own in state["gathered"].items():
            gathered.setdefault(name, []).append(own)
    for name, parts in gathered.items():
        found = objects.get(name)
        if found is None or found.metric_state.keys() != parts[0]["values"].keys():
            continue
        for key in parts[0]["values"]:
            value = _together(found, name, key, [part["values"][key] for part in parts])
            setattr(found, key, move_data_to_device(value, found.device))
        found._update_count = sum(part["updates"] for part in parts)
        found._forward_cache = move_data_to_device(parts[0]["last"], found.device)
    logged = {
        (entry["stage"], *entry["place"]): entry
        for state in states
        for entry in state["logged"]
    }
    for entry in logged.values():
        if entry["object"] in objects:
            options = LogOptions(**entry["options"])
            hook, loader, key, suffix = entry["place"]
            store = stores[entry["stage"]]
            slot = store.adopt(hook, loader, key, suffix, options, ObjectSlot)
            slot.last, slot.weight = objects[entry["object"]], 1.0


def _together(found: Any, name: str, key: str, parts: list[Any]) -> Any:
    """Return one state of several processes' objects, as torchmetrics reduces it."""
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], list):
        return [value for part in parts for value in part]
    reduction = found._reductions[key]
    if reduction is None:
        rank_zero_warn(
            f"`{key}` of the metric object `{name}` ({type(found).__name__}) cannot be put "
            "together of several processes: of what they had gathered in this epoch, that "
            "of one is kept"
        )
        return parts[0]
    return reduction(torch.stack(parts))


@contextmanager
def unchanged_objects(module: nn.Module) -> Iterator[None]:
    """Leave a module's metric objects as they were, whatever the block updates."""
    kept = [
        (found, found._copy_state_dict(), found._update_count, found._forward_cache)
        for _, found in _objects(module)
    ]
    try:
        yield
    finally:
        for found, values, updates, last in kept:
            for key, value in values.items():
                setattr(found, key, value)
            found._update_count, found._forward_cache = updates, last
            found._computed = None


def _objects(module: nn.Module) -> Iterator[tuple[str, Any]]:
    torchmetrics = sys.modules.get("torchmetrics")
    if torchmetrics is not None:
        for name, part in module.named_modules():
            if isinstance(part, torchmetrics.Metric):
                yield name, part
