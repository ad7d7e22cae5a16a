"""Hyperparameters as what files and services can hold: plain data, or text for the rest."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any


def as_dict(params: Mapping[str, Any] | Namespace | None) -> dict[str, Any]:
    """Return hyperparameters given in any of the accepted forms as a dictionary."""
    if params is None:
        return {}
    return dict(vars(params) if isinstance(params, Namespace) else params)


def plain(value: Any) -> Any:
    """Turn `value` into what YAML and JSON can hold without naming a Python class."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return str(value)


def flattened(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested hyperparameters by path, such as `optimizer/lr`.

    Leaves are numbers, booleans and strings; what is none of these becomes its text.

    Example:
        >>> flattened({"optimizer": {"lr": 0.1}, "layers": [8, 8]})
        {'optimizer/lr': 0.1, 'layers': '[8, 8]'}
    """
    flat: dict[str, Any] = {}
    for key, value in params.items():
        inner = _inner(value)
        if inner is None:
            flat[f"{prefix}{key}"] = _leaf(value)
        else:
            flat.update(flattened(inner, f"{prefix}{key}/"))
    return flat


def _inner(value: Any) -> dict[str, Any] | None:
    """Return what `value` nests, or None if it is a leaf."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Namespace):
        return vars(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return None


def _leaf(value: Any) -> bool | int | float | str:
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Enum):
        return value.name
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        item = value.item()  # a number of numpy's or torch's
        return item if isinstance(item, bool | int | float | str) else str(item)
    return str(value)
