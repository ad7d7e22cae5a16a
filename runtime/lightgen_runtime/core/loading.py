"""Rebuilding a module or datamodule from a checkpoint and overrides."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterator
from functools import wraps
from importlib import import_module
from pathlib import Path
from types import ModuleType
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
from lightgen_runtime.io.checkpoint_io import TorchCheckpointIO
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
    arguments = accepted_arguments(cls, saved, name)
    if name in (None, "kwargs"):
        _check_overrides(cls, overrides, arguments)
    build = _from_config if by_config else _construct
    instance: Any = build(cls, arguments, path)
    if isinstance(instance, nn.Module):
        _load_module(instance, checkpoint, strict, path)
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
    _load_module(module, checkpoint, None, path)


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
            "strict=False to skip names that only one side has."
        ) from error


def _shortened(error: RuntimeError, most: int = 4) -> str:
    """Return the first few of the mismatches that torch lists."""
    lines = [f"  {line.strip()}" for line in str(error).splitlines()[1:]]
    more = len(lines) - most
    return "\n".join(lines[:most] + ([f"  ... and {more} more"] if more > 0 else []))


def _load_module(
    module: Any, checkpoint: dict[str, Any], strict: bool | None, path: object
) -> None:
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


def _chosen_class(cls: type[T], class_path: str | None, path: object) -> type[T]:
    """Return the subclass of `cls` that a command line's config had chosen, if any."""
    if class_path is None:
        return cls
    module = _imported(class_path, path)
    chosen: Any = getattr(module, class_path.rpartition(".")[2], None)
    if inspect.isclass(chosen) and issubclass(chosen, cls):
        return chosen
    return cls


def _from_config(cls: type[T], arguments: dict[str, Any], path: object) -> T:
    """Build `cls` from what a command line saved: arguments as a config has them."""
    for class_path in _class_paths(arguments):
        _imported(class_path, path)
    # In a layer above, and with a parser that nobody else pays for.
    cli = import_module("lightgen_runtime.cli")
    instance: T = cli.instantiate_module(cls, arguments)
    return instance


def _class_paths(value: Any) -> Iterator[str]:
    """Yield the class paths anywhere in a config."""
    if isinstance(value, dict):
        if isinstance(value.get("class_path"), str):
            yield value["class_path"]
        for item in value.values():
            yield from _class_paths(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _class_paths(item)


def _imported(class_path: str, path: object) -> ModuleType:
    """Return the module of a class that a file names.

    Raises:
        MisconfigurationException: Nobody has imported it. A file must not decide that.
    """
    name = class_path.rpartition(".")[0]
    if name not in sys.modules:
        raise MisconfigurationException(
            f"`{path}` was written by a run whose config names `{class_path}`. Import "
            f"`{name}` before `load_from_checkpoint`, if you trust the file."
        )
    return sys.modules[name]


def _read_hparams(path: Path) -> dict[str, Any]:
    import yaml

    if not path.is_file():
        raise CheckpointNotFoundError(f"no hyperparameter file at `{path}`")
    with path.open(encoding="utf-8") as stream:
        values = yaml.safe_load(stream)
    if not isinstance(values, dict):
        raise CheckpointFormatError(f"`{path}` holds no mapping of hyperparameters")
    return values
