"""Type hints in the words of a config file: `int or null`, `'min' or 'max'`."""

from __future__ import annotations

import enum
import inspect
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

_PLAIN = {
    type(None): "null",
    None: "null",
    bool: "true or false",
    str: "str",
    Path: "a path",
    int: "int",
    float: "float",
    dict: "a mapping",
    list: "a list",
    Any: "anything",
}


def type_name(hint: Any) -> str:
    """Return what a config may say where `hint` is asked for."""
    return " or ".join(dict.fromkeys(_alternatives(hint)))


def classes_in(hint: Any) -> tuple[type, ...]:
    """Return the classes in `hint` that a config gives as a `class_path`."""
    return tuple(dict.fromkeys(_classes_in(hint)))


def _classes_in(hint: Any) -> Iterator[type]:
    if get_origin(hint) is not None:
        for argument in get_args(hint):
            yield from _classes_in(argument)
    elif inspect.isclass(hint) and hint not in _PLAIN and not _is_enum(hint):
        yield hint


def _alternatives(hint: Any) -> Iterator[str]:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        # null reads best at the end, wherever the hint has it
        for argument in sorted(arguments, key=lambda part: part is type(None)):
            yield from _alternatives(argument)
    elif origin is Literal:
        yield from map(repr, arguments)
    elif inspect.isclass(origin) and issubclass(origin, Mapping):
        yield "a mapping"
    elif inspect.isclass(origin) and issubclass(origin, Iterable):
        items = " or ".join(type_name(part) for part in arguments if part is not ...)
        yield f"a list of {items}" if items else "a list"
    elif _is_enum(hint):
        yield from hint.__members__
    elif inspect.isclass(hint) and hint not in _PLAIN:
        yield f"a `class_path` of {hint.__name__}"
    else:
        yield _PLAIN.get(hint, str(hint).replace("typing.", ""))


def _is_enum(hint: Any) -> bool:
    return inspect.isclass(hint) and issubclass(hint, enum.Enum)
