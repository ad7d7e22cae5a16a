"""What several processes have saved of their own, for another number of processes.

Each process takes over what every so many of the former ones had: together they hold all
that has been logged. Where a process stood in its part of the data means nothing here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightgen_runtime.core.metric_slots import SLOT_TYPES, FoldSlot

_OWN = ("rng", "epoch_rng")


def state_for(saved: list[dict[str, Any]], processes: int, rank: int) -> dict[str, Any]:
    """Return what one process goes on from.

    Random states are those of the former process of its number, or of another one where
    there were fewer; gradients of an open window are the mean of all.

    Args:
        saved: What each former process has saved, by its number.
        processes: How many there are now.
        rank: Number of this one.
    """
    mine, alike = saved[rank::processes], saved[rank % len(saved)]
    state = {
        **{name: alike[name] for name in _OWN},
        "train_metrics": _merged([one["train_metrics"] for one in mine]),
        "gradients": _mean([one["gradients"] for one in saved]),
        "metric_objects": [
            one["metric_objects"] for one in mine if "metric_objects" in one
        ],
        "loader": {},
        "validation": None,
    }
    return state


def _merged(parts: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the running reductions of several processes as those of one."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for slot in (slot for slots in parts for slot in slots):
        key = (slot["hook"], slot["loader"], slot["name"])
        former = found.setdefault(key, slot)
        if former is slot or slot["options"]["rank_zero_only"] or not slot["weight"]:
            continue
        both = dict(slot) if not former["weight"] else _added(former, slot)
        found[key] = both
    return list(found.values())


def _added(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    kind = SLOT_TYPES[one["options"]["reduce_fx"]]
    totals = one["total"], other["total"]
    total = kind.fold(*totals) if issubclass(kind, FoldSlot) else sum(totals)
    return {**one, "total": total, "weight": one["weight"] + other["weight"]}


def _mean(by_process: list[list[Tensor | None]]) -> list[Tensor | None]:
    """Return the mean of the gradients of several processes, parameter by parameter."""
    together: list[Tensor | None] = []
    for gradients in zip(*by_process, strict=True):
        there = [g for g in gradients if g is not None]
        mean = torch.stack(there).sum(0) / len(gradients) if there else None
        together.append(mean)
    return together
