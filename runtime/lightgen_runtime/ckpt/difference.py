"""What two files have that the other has not, or has otherwise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightgen_runtime.ckpt.contents import Contents, as_json
from lightgen_runtime.ckpt.table import columns, heading, listing


def compare(one: Contents, other: Contents) -> dict[str, Any]:
    """Return every difference; `same` is whether there is none.

    Weights are compared by value, hyperparameters and counters as they are; of optimizers
    and schedulers, all that is stored.
    """
    a, b = one.weights, other.weights
    changed = {
        name: found
        for name in a
        if name in b and (found := _between(a[name], b[name])) is not None
    }
    found = {
        "only_in_first": [name for name in a if name not in b],
        "only_in_second": [name for name in b if name not in a],
        "weights": changed,
        "hyperparameters": _values(one.hyperparameters, other.hyperparameters),
        "counters": _values(_counters(one), _counters(other)),
        "training": [
            key
            for key in ("optimizer_states", "lr_schedulers", "callbacks")
            if not _equal(_state(one, key), _state(other, key))
        ],
    }
    same = not any(found.values())
    return {"first": str(one.path), "second": str(other.path), "same": same, **found}


def _state(contents: Contents, key: str) -> Any:
    """Return a part of the training's state; paths as seen from the callback's folder."""
    state = contents.checkpoint.get(key)
    if key != "callbacks" or not isinstance(state, dict):
        return state
    return {name: _located(entry) for name, entry in state.items()}


def _located(state: Any) -> Any:
    folder = state.get("dirpath") if isinstance(state, dict) else None
    return state if not isinstance(folder, str) else _relative(state, folder)


def _relative(value: Any, folder: str) -> Any:
    if isinstance(value, dict):
        return {_relative(k, folder): _relative(v, folder) for k, v in value.items()}
    if isinstance(value, str) and value.startswith(folder):
        return value.removeprefix(folder).lstrip("/\\")
    return value


def _between(a: Any, b: Any) -> dict[str, Any] | None:
    """Return how two entries of a `state_dict` differ, or None if they do not."""
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return None if _equal(a, b) else {"values": [as_json(a), as_json(b)]}
    if a.shape != b.shape:
        return {"shapes": [list(a.shape), list(b.shape)]}
    if a.dtype != b.dtype:
        return {"dtypes": [str(a.dtype), str(b.dtype)]}
    if torch.equal(a, b) or _equal(a, b):
        return None
    distance = (a.to(torch.float64) - b.to(torch.float64)).abs()
    return {"max_abs": as_json(distance.max()), "changed": int((a != b).sum())}


def _counters(contents: Contents) -> dict[str, Any]:
    checkpoint = contents.checkpoint
    counters = {name: checkpoint.get(name) for name in ("epoch", "global_step")}
    progress = contents.own.get("progress")
    return {**(progress if isinstance(progress, dict) else {}), **counters}


def _values(one: dict[str, Any], other: dict[str, Any]) -> dict[str, list[Any]]:
    absent = "(absent)"
    pairs = {
        name: (one.get(name, absent), other.get(name, absent))
        for name in {**one, **other}
    }
    return {
        name: [as_json(a), as_json(b)]
        for name, (a, b) in pairs.items()
        if not _equal(a, b)
    }


def _equal(a: Any, b: Any) -> bool:
    """Compare nested data; a NaN equals a NaN."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        return torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all())
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_equal, a, b))
    if type(a) is not type(b):
        return False
    return bool(a == b) or (a != a and b != b)


def rendered(found: dict[str, Any]) -> str:
    """Return the differences as a page for a terminal."""
    lines = [f"- {found['first']}\n+ {found['second']}"]
    if found["same"]:
        return f"{lines[0]}\n\nthe same: weights, hyperparameters, counters, training"
    for sign, key in (("-", "only_in_first"), ("+", "only_in_second")):
        if found[key]:
            names = "\n".join(f"  {sign} {name}" for name in found[key])
            lines.append(heading("weights in one file only", names))
    if found["weights"]:
        rows = [[name, *_spelled(change)] for name, change in found["weights"].items()]
        lines.append(heading("weights that differ", columns(rows)))
    if not any(found[key] for key in ("weights", "only_in_first", "only_in_second")):
        lines.append("weights: the same")
    for key in ("hyperparameters", "counters"):
        if found[key]:
            pairs = {name: f"{a} -> {b}" for name, (a, b) in found[key].items()}
            lines.append(heading(key, listing(pairs, indent=2)))
    if found["training"]:
        body = "  " + ", ".join(found["training"])
        lines.append(heading("state of training that differs", body))
    return "\n\n".join(lines)


def _spelled(change: dict[str, Any]) -> list[str]:
    if "max_abs" in change:
        largest = change["max_abs"]
        text = f"{largest:.3g}" if isinstance(largest, float) else str(largest)
        return [f"up to {text}", f"in {change['changed']} numbers"]
    kind, (a, b) = next(iter(change.items()))
    return [f"{kind} {a}", f"-> {b}"]
