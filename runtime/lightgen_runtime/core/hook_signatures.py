"""Hooks that cannot be called as they are: found at the start, not hours later."""

from __future__ import annotations

import inspect
from collections.abc import Iterable

from lightgen_runtime.core.hooks import HOOKS, is_overridden
from lightgen_runtime.utilities.exceptions import MisconfigurationException

_NOT_IN_A_FIT = ("on_test_", "on_predict_")


def hooks_of(fn: str, validates: bool) -> list[str]:
    """Return the hooks that one of the trainer's methods may call.

    Args:
        fn: "fit", "validate", "test" or "predict".
        validates: Whether a fit has a validation loader.
    """
    names = [hook.name for hook in HOOKS]
    if fn != "fit":
        prefix = "on_validation_" if fn == "validate" else f"on_{fn}_"
        return ["setup", *(name for name in names if name.startswith(prefix))]
    others = _NOT_IN_A_FIT if validates else (*_NOT_IN_A_FIT, "on_validation_")
    return ["setup", *(name for name in names if not name.startswith(others))]


def check_hook_signatures(owner: object, base: type, hooks: Iterable[str]) -> None:
    """Make sure that each hook of `owner` takes what it will be given.

    Args:
        owner: A module, datamodule or callback.
        base: The class that declares its hooks.
        hooks: Their names; those that `base` does not have are passed over.

    Raises:
        MisconfigurationException: A hook takes too few or too many arguments.
    """
    for name in hooks:
        if not hasattr(base, name) or not is_overridden(name, owner, base):
            continue
        declared = list(inspect.signature(getattr(base, name)).parameters.values())[1:]
        given = [p.name for p in declared if p.default is p.empty]
        by_name = {"stage": "fit"} if name == "setup" else {}
        try:
            inspect.signature(getattr(owner, name)).bind(
                *(argument for argument in given if argument not in by_name), **by_name
            )
        except ValueError:  # no signature to look at
            continue
        except TypeError as error:
            raise MisconfigurationException(
                f"`{type(owner).__name__}.{name}` cannot be called: {error}. Define it as "
                f"`def {name}(self{''.join(f', {argument}' for argument in given)})`."
            ) from error
