"""Changing the tensors in a batch, whatever its shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor


def map_tensors(data: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Return the data with `function` applied to every tensor in it.

    Args:
        data: Tensors in any nesting of mappings, lists, tuples, named tuples and
            dataclasses; all else passes through.
        function: From a tensor to what takes its place.
    """
    if isinstance(data, Tensor):
        return function(data)
    if isinstance(data, Mapping):
        mapped = {key: map_tensors(value, function) for key, value in data.items()}
        return mapped if type(data) is dict else rebuilt(data, mapped)
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(map_tensors(part, function) for part in data))
    if isinstance(data, (list, tuple)):
        return type(data)(map_tensors(part, function) for part in data)
    if is_dataclass(data) and not isinstance(data, type):
        changed = copy(data)
        for field in fields(data):
            value = map_tensors(getattr(data, field.name), function)
            object.__setattr__(changed, field.name, value)  # frozen ones too
        return changed
    return data


def rebuilt(original: Mapping[Any, Any], entries: dict[Any, Any]) -> Any:
    """Return `entries` as a mapping of the original's kind, or as a plain one."""
    try:
        return type(original)(entries)  # type: ignore[call-arg]
    except TypeError:
        return entries
