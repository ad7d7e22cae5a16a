"""Modules that went through `torch.compile`: what they are taken for, and their names.

`torch.compile(module)` puts a wrapper around a module, which adds a part to the names of
all that is in it. Files and states here have the names of the module itself, so that they
fit whether it is compiled or not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from lightgen_runtime.core.module import LightningModule
from lightgen_runtime.utilities.exceptions import MisconfigurationException

Function = Callable[..., Any]


def from_compiled(model: Any) -> LightningModule:
    """Return the `LightningModule` inside of `torch.compile(module)`, to be run compiled.

    Its methods stay as they are; a `Trainer` compiles the steps that it runs with what
    `model` was compiled with.

    Args:
        model: What `torch.compile` returned for a `LightningModule`.

    Raises:
        MisconfigurationException: It is something else.
    """
    module = getattr(model, "_orig_mod", None)
    if not isinstance(module, LightningModule):
        inside = "" if module is None else f" around {type(module).__name__}"
        raise MisconfigurationException(
            f"`from_compiled` got {type(model).__name__}{inside}; what `torch.compile` "
            "returned for a `LightningModule` is needed"
        )
    module.__dict__["_compiles_with"] = model.dynamo_ctx
    return module


def to_uncompiled(model: Any) -> LightningModule:
    """Return the `LightningModule`, to be run as it is written.

    Args:
        model: What `torch.compile` or `from_compiled` returned.

    Raises:
        MisconfigurationException: It is something else.
    """
    module = getattr(model, "_orig_mod", model)
    if not isinstance(module, LightningModule) or (
        module is model and compiles_with(module) is None
    ):
        raise MisconfigurationException(
            f"`to_uncompiled` got {type(model).__name__}, which has not been compiled; what "
            "`torch.compile` or `from_compiled` returned is needed"
        )
    module.__dict__["_compiles_with"] = None
    return module


def compiles_with(module: LightningModule) -> Callable[[Function], Function] | None:
    """Return what compiles a function as `module` was compiled; None if it was not."""
    found = module.__dict__.get("_compiles_with")
    return cast("Callable[[Function], Function] | None", found)
