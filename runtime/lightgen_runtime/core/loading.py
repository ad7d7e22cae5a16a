"""Rebuilding a module or datamodule from a checkpoint and overrides."""

from __future__ import annotations

import inspect
import os
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor, nn

from lightgen_runtime.core.hparams import (
    CLASS_PATH_KEY,
    INSTANTIATOR,
    INSTANTIATOR_KEY,
    AttributeDict,
    HyperparametersMixin,
    accepted_arguments,
)
from lightgen_runtime.core.named_classes import NamedClasses, not_allowed
from lightgen_runtime.io.checkpoint_io import TorchCheckpointIO
from lightgen_runtime.io.content_check import check_structure
from lightgen_runtime.utilities.exceptions import (
    CheckpointFormatError,
    CheckpointMismatchError,
    CheckpointNotFoundError,
    MisconfigurationException,
)
from lightgen_runtime.utilities.nearest import did_you_mean

T = TypeVar("T", bound=HyperparametersMixin)


if TYPE_CHECKING:
    class_only = classmethod
else:

    class class_only(classmethod):
        """A class method that refuses to be called on an instance.

        `model.load_from_checkpoint(path)` reads as if it changed `model`.
        """

        def __get__(self, instance, owner=None):
            bound = super().__get__(instance, owner)
            if instance is None:
                return bound

            @wraps(bound)
            def refuse(*args, **kwargs):
                call = f"{owner.__name__}.{bound.__name__}(...)"
                raise MisconfigurationException(
                    f"`{bound.__name__}` of an instance of {owner.__name__}: it makes a "
                    f"new one and would leave this one as it is. Write `new = {call}`"
                )

            return refuse


def load_from_checkpoint(
    cls: type[T],
    path: str | os.PathLike[str],
    map_location: Any,
    hparams_file: str | os.PathLike[str] | None,
    strict: bool | None,
    overrides: dict[str, Any],
) -> T:
    """Construct `cls` with the checkpoint's hyperparameters and load its state.

    Args:
        cls: A `LightningModule` or `LightningDataModule` class.
        path: The checkpoint.
        map_location: As in `torch.load`; None is the CPU.
        hparams_file: YAML file whose values replace the checkpoint's.
        strict: Whether parameter names must match exactly; None asks the module.
        overrides: Values that replace saved ones.
    """
    checkpoint = TorchCheckpointIO().load_checkpoint(os.fspath(path), map_location)
    if hparams_file is None:
        saved = dict(checkpoint.get(cls.CHECKPOINT_HYPER_PARAMS_KEY) or {})
    else:
        saved = _read_hparams(Path(hparams_file))
    by_config = saved.pop(INSTANTIATOR_KEY, None) == INSTANTIATOR
    if by_config:
        cls = _chosen_class(cls, saved.pop(CLASS_PATH_KEY, None), path)
    saved = {**_with_attributes(saved), **overrides}
    name = checkpoint.get(cls.CHECKPOINT_HYPER_PARAMS_NAME, "kwargs")
    _check_name(cls, name, path)
    arguments = accepted_arguments(cls, saved, name)
    if name in (None, "kwargs"):
        _check_overrides(cls, overrides, arguments)
    build = _from_config if by_config else _construct
    instance: Any = build(cls, arguments, path)
    if isinstance(instance, nn.Module):
        load_module(instance, checkpoint, strict, path)
    else:
        state = checkpoint.get(cls.__qualname__)
        if state is not None:
            instance.load_state_dict(state)
    loaded: T = instance
    return loaded


def take_weights(module: nn.Module, path: str | os.PathLike[str]) -> None:
    """Load a checkpoint's weights, and nothing else of it, into a module.

    Raises:
        CheckpointFormatError: The file is no checkpoint of a module.
        CheckpointMismatchError: Names or shapes differ.
    """
    checkpoint = TorchCheckpointIO().load_checkpoint(Path(path), "cpu")
    load_module(module, checkpoint, None, path)


def load_weights(
    module: nn.Module, state_dict: dict[str, Any], strict: bool, source: object
) -> None:
    """Load parameters and buffers, naming what does not fit.

    Raises:
        CheckpointMismatchError: Names or shapes differ.
    """
    try:
        module.load_state_dict(state_dict, strict=strict)
    except RuntimeError as error:
        raise CheckpointMismatchError(
            f"the weights in `{source}` do not fit {type(module).__name__}:\n"
            f"{_shortened(error)}\n"
            "Build the module as it was when the checkpoint was written, or load with "
            "`load_from_checkpoint(..., strict=False)` to skip names that only one side has."
        ) from error


def _shortened(error: RuntimeError, most: int = 4) -> str:
    """Return the first few of the mismatches that torch lists."""
    lines = [f"  {line.strip()}" for line in str(error).splitlines()[1:]]
    more = len(lines) - most
    return "\n".join(lines[:most] + ([f"  ... and {more} more"] if more > 0 else []))


def load_module(
    module: Any, checkpoint: dict[str, Any], strict: bool | None, path: object
) -> None:
    """Load a checkpoint's weights into a module, its own hooks taking part.

    Args:
        module: A `LightningModule`; it goes to the device of the weights.
        checkpoint: What was read.
        strict: Whether names must match exactly; None asks the module.
        path: The file, for messages.

    Raises:
        CheckpointMismatchError: Names or shapes differ.
    """
    if "state_dict" not in checkpoint:
        raise CheckpointFormatError(
            f"`{path}` has no `state_dict`, only {sorted(map(str, checkpoint))[:8]}: it is "
            "not a checkpoint of a LightningModule"
        )
    module.configure_model()
    module.on_load_checkpoint(checkpoint)
    if strict is None:
        strict = module.strict_loading
    state_dict = checkpoint["state_dict"]
    load_weights(module, state_dict, strict, path)
    tensor = next((v for v in state_dict.values() if isinstance(v, Tensor)), None)
    if tensor is not None:
        module.to(tensor.device)


def _with_attributes(value: Any) -> Any:
    """Let what was stored of a dataclass or namespace be read by attribute again."""
    if not isinstance(value, dict):
        return value
    return AttributeDict({k: _with_attributes(v) for k, v in value.items()})


def _check_name(cls: type, name: str | None, path: object) -> None:
    """Refuse a file that says its hyperparameters are an argument that there is not."""
    parameters = inspect.signature(cls).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if name not in (None, "kwargs", *parameters) and not takes_any:
        raise CheckpointMismatchError(
            f"`{path}` was written by a module that got its hyperparameters as one "
            f"argument `{name}`, and {cls.__name__} has none of that name; it has "
            f"{list(parameters)}. Rename it, or load with another class."
        )


def _check_overrides(
    cls: type, overrides: dict[str, Any], accepted: dict[str, Any]
) -> None:
    for name in overrides:
        if name not in accepted:
            known = list(inspect.signature(cls).parameters)
            raise MisconfigurationException(
                f"`{cls.__name__}.load_from_checkpoint(..., {name}=...)`: `__init__` has no "
                f"such argument; it has {known}.{did_you_mean(name, known)}"
            )


def _construct(cls: type[T], arguments: dict[str, Any], path: object) -> T:
    try:
        return cls(**arguments)
    except TypeError as error:
        if "required" not in str(error):
            raise
        raise MisconfigurationException(
            f"{cls.__name__} cannot be rebuilt from `{path}`: {error}. Pass the value to "
            "`load_from_checkpoint`, or call `self.save_hyperparameters()` in `__init__` "
            "so that checkpoints hold it."
        ) from error


def _chosen_class(cls: type[T], class_path: Any, path: object) -> type[T]:
    """Return the class that a command line's config had chosen, if the user named it."""
    if class_path is None:
        return cls
    chosen = NamedClasses(cls).find(str(class_path))
    if chosen is None:
        raise not_allowed([str(class_path)], path)
    # Whoever loads another kind of module from the file has said so.
    return chosen if inspect.isclass(chosen) and issubclass(chosen, cls) else cls


def _from_config(cls: type[T], arguments: dict[str, Any], path: object) -> T:
    """Build `cls` from what a command line saved: arguments as a config has them."""
    # In a layer above, and with a parser that nobody else pays for.
    cli = import_module("lightgen_runtime.cli.instantiation")
    with cli.naming_only(NamedClasses(cls), arguments, path):
        instance: T = cli.instantiate_module(cls, arguments)
    return instance


def _read_hparams(path: Path) -> dict[str, Any]:
    import yaml

    if not path.is_file():
        raise CheckpointNotFoundError(f"no hyperparameter file at `{path}`")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise CheckpointFormatError(
            f"`{path}` cannot be read as hyperparameters, which are plain YAML: {error}"
        ) from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise CheckpointFormatError(f"`{path}` holds no mapping of hyperparameters")
    check_structure(values, path, path.stat().st_size)
    return values
