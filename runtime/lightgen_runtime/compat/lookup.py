"""Finding what stands for a name of Lightning, and the key under which rules know it."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

from lightgen_runtime.compat.names import replaced

NOTHING: Any = object()
# Where the inventory lists a class or function; the first that has it.
_HOMES = (
    *("", "callbacks", "loggers", "profilers", "strategies", "plugins"),
    *("accelerators", "utilities", "cli", "tuner.tuning", "core.optimizer"),
)
_PREFIXES = ("lightning.pytorch", "pytorch_lightning", "lightning")


def find(dotted: str) -> Any:
    """Return the object that stands for one of Lightning's, or `NOTHING`.

    Args:
        dotted: Its full name, e.g. `lightning.pytorch.callbacks.Timer`.
    """
    module, _, name = dotted.rpartition(".")
    try:
        return import_module(str(replaced(dotted)))
    except ModuleNotFoundError:
        pass
    if not module:
        return NOTHING
    owner = find(module)
    return NOTHING if owner is NOTHING else getattr(owner, name, NOTHING)


def key_of(found: Any, dotted: str) -> str:
    """Return the key under which rules know an object, or else a name.

    Args:
        found: What `find` returned.
        dotted: The name it was found by.
    """
    if inspect.isclass(found) or inspect.isfunction(found):
        for home in _HOMES:
            module = _module(home)
            if getattr(module, found.__name__, NOTHING) is found:
                return f"{home}.{found.__name__}".lstrip(".")
    for prefix in _PREFIXES:
        if dotted.startswith(f"{prefix}."):
            return dotted.removeprefix(f"{prefix}.")
    return dotted


# Names of parameters that take any keyword, and say what to do instead.
_REFUSED = ("elsewhere", "unknown")


@cache
def keys_of_bases(cls: type) -> tuple[str, ...]:
    """Return the keys of a class and of those of its bases that rules know."""
    return tuple(filter(None, (key_of(base, "") for base in cls.__mro__)))


@cache
def members_of(cls: type) -> frozenset[str]:
    """Return the names that a class has, and those that it gives to its instances."""
    package = cls.__module__.partition(".")[0]
    found: set[str] = set()
    for base in cls.__mro__:
        found |= vars(base).keys()  # `dir` leaves out what an enumeration inherits
        if base.__module__.partition(".")[0] == package:
            found |= set(inspect.get_annotations(base)) | _given_to_self(base)
    return frozenset(found)


def _given_to_self(cls: type) -> set[str]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError):
        return set()
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


def parameters_of(function: Any) -> Mapping[str, inspect.Parameter] | None:
    """Return the parameters of a function or class; None of what has no signature."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return None


def accepts(function: Any, keyword: str) -> bool:
    """Tell whether a call may pass this keyword; of what has no signature, yes."""
    parameters = parameters_of(function)
    if parameters is None or keyword in parameters:
        return True
    return any(
        parameter.kind is inspect.Parameter.VAR_KEYWORD and name not in _REFUSED
        for name, parameter in parameters.items()
    )


def _module(home: str) -> ModuleType | None:
    try:
        return import_module(f"lightgen_runtime.pytorch.{home}".rstrip("."))
    except ModuleNotFoundError:
        return None
