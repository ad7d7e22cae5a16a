"""The states of torchmetrics' objects, which are no part of a module's weights."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from lightgen_runtime.core.metric_slots import LogOptions, ObjectSlot
from lightgen_runtime.core.metrics import MetricStore
from lightgen_runtime.utilities.move_data import move_data_to_device


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
    module: nn.Module, stores: Mapping[str, MetricStore], states: Mapping[str, Any]
) -> None:
    """Take back what `states_of_objects` found, as far as the objects are there."""
    objects = dict(_objects(module))
    for name, state in states["gathered"].items():
        found = objects.get(name)
        if found is None or found.metric_state.keys() != state["values"].keys():
            continue
        for key, value in state["values"].items():
            setattr(found, key, move_data_to_device(value, found.device))
        found._update_count = state["updates"]
        found._forward_cache = move_data_to_device(state["last"], found.device)
    for entry in states["logged"]:
        if entry["object"] in objects:
            options = LogOptions(**entry["options"])
            hook, loader, key, suffix = entry["place"]
            store = stores[entry["stage"]]
            slot = store.adopt(hook, loader, key, suffix, options, ObjectSlot)
            slot.last, slot.weight = objects[entry["object"]], 1.0


def _objects(module: nn.Module) -> Iterator[tuple[str, Any]]:
    torchmetrics = sys.modules.get("torchmetrics")
    if torchmetrics is not None:
        for name, part in module.named_modules():
            if isinstance(part, torchmetrics.Metric):
                yield name, part
