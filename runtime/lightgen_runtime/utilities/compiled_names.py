"""The names of what is inside of modules that went through `torch.compile`.

`torch.compile(module)` returns a wrapper that holds the module under a name of its own.
States and files have the names as they are without it, so that they fit whether a part is
compiled or not.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from functools import partial
from typing import Any

from torch import nn

# Source: what `torch._dynamo.eval_frame.OptimizedModule` calls the module.
WRAPPED = "_orig_mod"


def plain_name(name: str) -> str:
    """Return the dotted name of a parameter, buffer or part as without compilation."""
    return ".".join(part for part in name.split(".") if part != WRAPPED)


def rename_saved(state: MutableMapping[str, Any], prefix: str) -> None:
    """Give what is below `prefix` in a state its names without compilation, in place."""

    def saved(name: str) -> str:
        below = name.startswith(prefix) and WRAPPED in name
        return prefix + plain_name(name[len(prefix) :]) if below else name

    _rename(state, saved)
    _rename(getattr(state, "_metadata", {}), saved)


def rename_for(module: nn.Module, state: MutableMapping[str, Any], prefix: str) -> None:
    """Give what is below `prefix` in a state the names that the module has, in place.

    Args:
        module: What the state is loaded into.
        state: With or without the names of wrappers.
        prefix: What the names of the module's own parts begin with.
    """
    rename_saved(state, prefix)
    paths = [f".{path}" for path, _ in module.named_modules(remove_duplicate=False)]
    for path in paths:
        if not path.endswith(f".{WRAPPED}"):
            continue
        outside = prefix + path.removesuffix(WRAPPED)[1:]
        inside = f"{outside}{WRAPPED}."
        _rename(state, partial(_moved, outside, inside))


def _moved(outside: str, inside: str, name: str) -> str:
    return inside + name[len(outside) :] if name.startswith(outside) else name


def _rename(state: MutableMapping[str, Any], new: Callable[[str], str]) -> None:
    names = {name: new(name) for name in state}
    if all(name == own for name, own in names.items()):
        return
    items = [(own, state[name]) for name, own in names.items()]
    state.clear()  # so that all stay in their order
    state.update(items)
