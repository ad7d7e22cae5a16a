"""Changing what is in a batch, whatever its shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import fields, is_dataclass
from typing import Any


def map_parts(data: Any, kind: type, function: Callable[[Any], Any]) -> Any:
    """Return the data with `function` applied to every part of a kind.

    Args:
        data: Parts in any nesting of mappings, lists, tuples, named tuples and
            dataclasses; all else passes through. It stays as it is.
        kind: Class of what to apply the function to; a container of this kind is a part.
        function: From a part to what takes its place.
    """
    if isinstance(data, kind):
        return function(data)
    if isinstance(data, Mapping):
        mapped = {key: map_parts(part, kind, function) for key, part in data.items()}
        return mapped if type(data) is dict else _rebuilt(data, mapped)
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(map_parts(part, kind, function) for part in data))
    if isinstance(data, (list, tuple)):
        return type(data)(map_parts(part, kind, function) for part in data)
    if is_dataclass(data) and not isinstance(data, type):
        changed = copy(data)
        for field in fields(data):
            value = map_parts(getattr(data, field.name), kind, function)
            object.__setattr__(changed, field.name, value)  # frozen ones too
        return changed
    return data


def _rebuilt(original: Mapping[Any, Any], entries: dict[Any, Any]) -> Any:
    """Return `entries` as a mapping of the original's kind, or as a plain one."""
    try:
        return type(original)(entries)  # type: ignore[call-arg]
    except TypeError:
        return entries
