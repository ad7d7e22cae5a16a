"""What `fit`, `validate`, `test` and `predict` were given, each in its place."""

from __future__ import annotations

from typing import Any

from torch import nn

from lightgen_runtime.core.compiled import from_compiled
from lightgen_runtime.core.datamodule import LightningDataModule
from lightgen_runtime.core.module import LightningModule
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.other_package import import_hint


def checked_model(fn: str, model: object, given: dict[str, Any]) -> LightningModule:
    """Return the module that is to run.

    Args:
        fn: Name of the trainer's method.
        model: What was given, compiled or not, or the model of the last run.
        given: Loaders by stage.

    Raises:
        MisconfigurationException: It is none, or half of one.
    """
    if isinstance(getattr(model, "_orig_mod", None), LightningModule):
        model = from_compiled(model)
    if not isinstance(model, LightningModule):
        raise MisconfigurationException(
            f"`trainer.{fn}()` got {_described(model)} as the model; a `LightningModule` "
            f"is needed{_what_next(fn, model, given)}"
        )
    if "_trainer" not in vars(model):
        raise MisconfigurationException(
            f"`{type(model).__name__}.__init__` does not call `super().__init__()`; call "
            "it first"
        )
    return model


def sort_data(
    fn: str, given: dict[str, Any], datamodule: Any
) -> tuple[dict[str, Any], LightningDataModule | None]:
    """Tell loaders from a datamodule.

    Args:
        fn: Name of the trainer's method.
        given: Loaders by stage; the first may be a datamodule.
        datamodule: What was given as such.

    Returns:
        The loaders by stage, and the datamodule if there is one.

    Raises:
        MisconfigurationException: Something is in the wrong place or is too much.
    """
    first, loaders = next(iter(given.items()))
    if isinstance(loaders, LightningDataModule) and datamodule is None:
        given = {**given, first: None}
        datamodule = loaders
    for value in [*given.values(), datamodule]:
        if isinstance(value, type) and issubclass(value, LightningDataModule):
            raise MisconfigurationException(
                f"`trainer.{fn}()` got the class {value.__name__}; give it an instance, "
                f"`{value.__name__}(...)`"
            )
        if isinstance(value, LightningDataModule) and value is not datamodule:
            raise MisconfigurationException(
                f"`trainer.{fn}()` got the datamodule {type(value).__name__} in the place of "
                "a loader; a datamodule has the loaders of all stages: give it alone, as "
                "`datamodule=...`"
            )
    if datamodule is None:
        return given, None
    if not isinstance(datamodule, LightningDataModule):
        raise MisconfigurationException(
            f"`trainer.{fn}(datamodule=...)` got {_described(datamodule)}; a "
            "`LightningDataModule` is needed. Loaders are given without a name, after the "
            "model."
        )
    if any(value is not None for value in given.values()):
        raise MisconfigurationException(
            f"`trainer.{fn}()` got both loaders and a datamodule; pass one of them"
        )
    return given, datamodule


def _described(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return type(value).__name__


def _what_next(fn: str, model: object, given: dict[str, Any]) -> str:
    if isinstance(model, type) and issubclass(model, LightningModule):
        return f": make an instance, `{model.__name__}(...)`"
    if any(isinstance(value, LightningModule) for value in given.values()):
        return f". The model comes first: `trainer.{fn}(model, ...)`"
    if model is None:
        return f": `trainer.{fn}(model, ...)`"
    if hint := import_hint(model):
        return hint
    if isinstance(model, nn.Module):
        return (
            ". Make the network an attribute of one, which has `training_step` and "
            "`configure_optimizers` besides"
        )
    return ""
