"""What `Trainer(compile=...)` comes to."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.nearest import did_you_mean

# Source: those of `torch.compile`, asked for there at a price of seconds.
MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
ARGUMENTS = tuple(
    name
    for name in inspect.signature(torch.compile).parameters
    if name not in ("model", "disable")
)


def compile_options(flag: Any) -> dict[str, Any] | None:
    """Return the arguments of `torch.compile` that the flag stands for.

    Args:
        flag: True, a mode, arguments by name; False or None for no compilation.

    Raises:
        MisconfigurationException: It is none of these.
    """
    if flag is None or flag is False:
        return None
    if flag is True:
        return {}
    options = {"mode": flag} if isinstance(flag, str) else flag
    if not isinstance(options, Mapping):
        raise MisconfigurationException(
            f"`Trainer(compile={flag!r})`: True, a mode ({', '.join(map(repr, MODES))}), or "
            "a dictionary of arguments of `torch.compile` is accepted"
        )
    for name in options:
        if name not in ARGUMENTS:
            raise MisconfigurationException(
                f"`Trainer(compile={flag!r})`: `torch.compile` has no argument {name!r} to "
                f"give here; it has {', '.join(ARGUMENTS)}.{did_you_mean(name, ARGUMENTS)}"
            )
    mode = options.get("mode")
    if mode is not None and mode not in MODES:
        raise MisconfigurationException(
            f"`Trainer(compile={flag!r})`: accepted modes are "
            f"{', '.join(map(repr, MODES))}; a backend is given as "
            f"{{'backend': ...}}.{did_you_mean(mode, MODES)}"
        )
    if mode is not None and options.get("options") is not None:
        raise MisconfigurationException(
            f"`Trainer(compile={flag!r})`: a mode is a set of options; give one of the two"
        )
    return dict(options)
