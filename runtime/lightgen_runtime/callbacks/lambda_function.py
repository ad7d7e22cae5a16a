"""A callback from single functions, for what is not worth a class."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from lightgen_runtime.callbacks.callback import Callback
from lightgen_runtime.utilities.exceptions import MisconfigurationException

_HOOKS = (
    "setup",
    "teardown",
    *(name for name in vars(Callback) if name.startswith("on_")),
)


class LambdaCallback(Callback):
    """Call the given functions as hooks.

    Args:
        hooks: Functions by the name of their hook. Each takes what the hook takes, so
            first the trainer and the module; `setup` and `teardown` also get `stage=`.

    Raises:
        MisconfigurationException: There is no such hook, or no function was given.

    Example:
        >>> callback = LambdaCallback(on_train_end=lambda trainer, module: print("end"))
    """

    def __init__(self, **hooks: Callable[..., Any] | None) -> None:
        for name, function in hooks.items():
            if name not in _HOOKS:
                near = get_close_matches(name, _HOOKS, n=1)
                hint = f" Did you mean `{near[0]}`?" if near else ""
                raise MisconfigurationException(
                    f"`LambdaCallback({name}=...)`: there is no hook of that name.{hint}"
                )
            if function is None:
                continue
            if not callable(function):
                raise MisconfigurationException(
                    f"`LambdaCallback({name}={function!r})`: a function is needed"
                )
            setattr(self, name, function)
