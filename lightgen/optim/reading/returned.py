"""The forms in which optimizers and schedulers are returned."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

from lightgen.optim.reading.problems import InexpressibleError, is_none, shown

_FORMS = (
    'an optimizer; a list of them; [optimizers], [schedulers]; {"optimizer": ..., '
    '"lr_scheduler": ...}, a list of those, or those by name'
)


@dataclass
class Entry:
    """One optimizer as it is returned.

    Attributes:
        optimizer: Its constructor call.
        label: What it is called, "" if nothing.
        schedulers: Its schedulers, or dictionaries that hold them.
        monitor: What is said of them outside of their dictionary.
    """

    optimizer: ast.Call
    label: str = ""
    schedulers: list[ast.expr] = field(default_factory=list)
    monitor: ast.expr | None = None


def entries(node: ast.expr) -> tuple[list[Entry], list[ast.expr]]:
    """Take a returned value apart.

    Returns:
        The optimizers, and the schedulers that were returned beside them all.

    Raises:
        InexpressibleError: It has no form that is known.
    """
    if isinstance(node, ast.Dict):
        return _mapping(node), []
    if not isinstance(node, (ast.List, ast.Tuple)):
        return [Entry(_optimizer(node))], []
    items = node.elts
    if len(items) == 2 and isinstance(items[0], (ast.List, ast.Tuple)):
        beside = items[1]
        listed = isinstance(beside, (ast.List, ast.Tuple))
        schedulers = beside.elts if listed else [beside]  # type: ignore[attr-defined]
        optimizers = [Entry(_optimizer(item)) for item in items[0].elts]
        if optimizers:
            return optimizers, list(schedulers)
    found: list[Entry] = []
    for item in items:
        found += (
            _mapping(item) if isinstance(item, ast.Dict) else [Entry(_optimizer(item))]
        )
    if not found:
        raise InexpressibleError(node, "no optimizer is returned", _FORMS)
    return found, []


def _mapping(node: ast.Dict) -> list[Entry]:
    pairs: dict[str, ast.expr] = {}
    for key, value in zip(node.keys, node.values, strict=True):
        if not isinstance(key, ast.Constant):
            raise InexpressibleError(
                key or value, "a returned dictionary with unknown keys", _FORMS
            )
        pairs[str(key.value)] = value
    if "optimizer" in pairs:
        return [_dictionary(node, pairs)]
    found = []
    for label, value in pairs.items():
        inner = (
            _mapping(value)
            if isinstance(value, ast.Dict)
            else [Entry(_optimizer(value))]
        )
        inner[0].label = label
        found += inner
    if not found or not all(entry.label.isidentifier() for entry in found):
        raise InexpressibleError(
            node, "a returned dictionary without optimizers by name", _FORMS
        )
    return found


def _dictionary(node: ast.Dict, pairs: dict[str, ast.expr]) -> Entry:
    entry = Entry(_optimizer(pairs.pop("optimizer")))
    scheduler = pairs.pop("lr_scheduler", None)
    if scheduler is not None and not is_none(scheduler):
        listed = isinstance(scheduler, ast.List)
        entry.schedulers = scheduler.elts if listed else [scheduler]  # type: ignore[attr-defined]
    entry.monitor = pairs.pop("monitor", None)
    if pairs:
        name, value = next(iter(pairs.items()))
        raise InexpressibleError(
            value,
            f"the returned dictionary has the key {name!r}",
            '"optimizer", "lr_scheduler" and "monitor"',
        )
    return entry


def _optimizer(node: ast.expr) -> ast.Call:
    if isinstance(node, ast.Call):
        return node
    raise InexpressibleError(
        node,
        f"`{shown(node)}` is returned, and no optimizer that is made here",
        _FORMS,
    )
