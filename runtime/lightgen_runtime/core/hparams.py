"""Capturing, holding and comparing hyperparameters of modules and datamodules."""

from __future__ import annotations

import copy
import inspect
import types
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from typing import Any

from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.nearest import did_you_mean

# Keys of hyperparameters that a command line saved: who builds the object from them, and
# which class the config had chosen. Source: checkpoints of Lightning 2.6.
INSTANTIATOR_KEY = "_instantiator"
INSTANTIATOR = "lightning.pytorch.cli.instantiate_module"
CLASS_PATH_KEY = "_class_path"

_given: ContextVar[tuple[type, dict[str, Any]] | None] = ContextVar(
    "given hyperparameters", default=None
)


@contextmanager
def given_hyperparameters(cls: type, values: dict[str, Any]) -> Iterator[None]:
    """Let `save_hyperparameters` of an object of `cls` save `values` of its arguments.

    A command line builds arguments from a config, and the config is what can be stored.
    """
    token = _given.set((cls, {**values, INSTANTIATOR_KEY: INSTANTIATOR}))
    try:
        yield
    finally:
        _given.reset(token)


class AttributeDict(dict[str, Any]):
    """A dict whose entries are also attributes.

    Example:
        >>> hparams = AttributeDict(lr=0.1)
        >>> hparams.lr
        0.1
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(
                f"no hyperparameter {name!r}; there are {sorted(self)}."
                f"{did_you_mean(name, self)}"
            ) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


class HyperparametersMixin:
    """Gives a class `save_hyperparameters` and `hparams`."""

    CHECKPOINT_HYPER_PARAMS_KEY = "hyper_parameters"
    CHECKPOINT_HYPER_PARAMS_NAME = "hparams_name"

    def save_hyperparameters(
        self,
        *args: Any,
        ignore: Iterable[str] | str | None = None,
        frame: types.FrameType | None = None,
        logger: bool = True,
    ) -> None:
        """Store the arguments of `__init__` in `self.hparams` and in every checkpoint.

        Call it in `__init__`. Values are taken as they are at that moment. Arguments of
        base classes' `__init__` that are on the call stack are included; `*args` are not.

        Args:
            args: Nothing (all arguments), names of arguments to keep, or one object (a
                mapping, a `Namespace` or a dataclass instance) that is the whole set.
            ignore: Names to leave out, inherited ones included.
            frame: The frame of `__init__`; found by itself when None.
            logger: Whether loggers are told at the start of a fit.

        Raises:
            MisconfigurationException: `__init__` has no argument of a name given.
            TypeError: The one object given cannot hold named values.
        """
        current = inspect.currentframe()
        frame = frame or (current.f_back if current else None)
        if frame is None:
            raise RuntimeError("`save_hyperparameters` needs Python's frame support")
        ignored = {ignore} if isinstance(ignore, str) else set(ignore or ())
        given = _given.get()
        if given is not None and type(self) is given[0]:
            captured = given[1]
        else:
            captured = _init_arguments(self, frame)
        name: str | None = "kwargs"
        if not args:
            chosen = captured
        elif all(isinstance(arg, str) for arg in args):
            chosen = {key: _captured(captured, key) for key in args}
        elif len(args) == 1:
            chosen = _as_mapping(args[0])
            name = next((k for k, v in captured.items() if v is args[0]), None)
        else:
            raise TypeError(
                "`save_hyperparameters` takes names of arguments, or one object that "
                f"holds all hyperparameters; got {[type(arg).__name__ for arg in args]}"
            )
        inherited = {} if name != "kwargs" else dict(self.hparams)
        merged = {**inherited, **chosen}
        kept = AttributeDict({k: v for k, v in merged.items() if k not in ignored})
        self.__dict__["_hparams"] = kept
        self.__dict__["_hparams_name"] = name
        self.__dict__["_hparams_initial"] = _deep_copies(kept)
        self.__dict__["_log_hyperparams"] = logger

    def remove_ignored_hparams(self, ignore_list: Iterable[str]) -> None:
        """Take hyperparameters out again that a base class has saved.

        Args:
            ignore_list: Their names; one that is not there is no error.
        """
        for name in ignore_list:
            self.hparams.pop(name, None)

    @property
    def hparams(self) -> AttributeDict:
        """The saved hyperparameters; changing an entry changes what is saved next."""
        if "_hparams" not in self.__dict__:
            self.__dict__["_hparams"] = AttributeDict()
        hparams: AttributeDict = self.__dict__["_hparams"]
        return hparams

    @hparams.setter
    def hparams(self, value: Any) -> None:
        raise AttributeError(
            f"`self.hparams` of {type(self).__name__} is not assigned to; call "
            "`self.save_hyperparameters(...)` in `__init__`, with nothing for all of its "
            "arguments or with the object that holds them"
        )

    @property
    def hparams_initial(self) -> AttributeDict:
        """A copy of the hyperparameters as they were when they were saved."""
        return _deep_copies(self.__dict__.get("_hparams_initial", {}))


def accepted_arguments(
    cls: type, given: Mapping[str, Any], name: str | None = "kwargs"
) -> dict[str, Any]:
    """Choose, from saved hyperparameters, the arguments that `cls.__init__` takes.

    Args:
        cls: The class to construct.
        given: Saved values, overrides already applied.
        name: "kwargs" when the values are arguments of their own; otherwise the name of
            the one argument that takes them all.
    """
    parameters = inspect.signature(cls).parameters
    if name not in (None, "kwargs"):
        return {str(name): AttributeDict(given)}
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return dict(given)
    return {key: value for key, value in given.items() if key in parameters}


def _init_arguments(instance: object, frame: types.FrameType) -> dict[str, Any]:
    """Collect `__init__` arguments from the frames that are constructing `instance`."""
    collected: dict[str, Any] = {}
    current: types.FrameType | None = frame
    while current is not None and not _constructs(instance, current):
        current = current.f_back  # called from a method that `__init__` calls
    while current is not None and _constructs(instance, current):
        # Outer frames belong to subclasses, whose values win.
        collected.update(_local_arguments(current))
        current = current.f_back
    return collected


def _constructs(instance: object, frame: types.FrameType) -> bool:
    code = frame.f_code
    if not code.co_varnames or code.co_name not in ("__init__", "__post_init__"):
        return False
    return frame.f_locals.get(code.co_varnames[0]) is instance


def _local_arguments(frame: types.FrameType) -> dict[str, Any]:
    info = inspect.getargvalues(frame)
    names = [name for name in info.args[1:] if name in info.locals]
    arguments = {name: info.locals[name] for name in names}
    if info.keywords:
        arguments.update(info.locals.get(info.keywords, {}))
    return arguments


def _captured(arguments: Mapping[str, Any], name: str) -> Any:
    if name in arguments:
        return arguments[name]
    raise MisconfigurationException(
        f"`save_hyperparameters({name!r})`: `__init__` has no such argument; it has "
        f"{sorted(arguments)}.{did_you_mean(name, arguments)}"
    )


def _as_mapping(config: Any) -> dict[str, Any]:
    if isinstance(config, Namespace):
        return vars(config)
    if isinstance(config, MutableMapping):
        return dict(config)
    if is_dataclass(config) and not isinstance(config, type):
        return {
            field.name: getattr(config, field.name)
            for field in fields(config)
            if field.init
        }
    raise TypeError(
        f"`save_hyperparameters` got a {type(config).__name__}; a mapping, a `Namespace` "
        "or a dataclass instance can be stored as hyperparameters"
    )


def _deep_copies(values: Mapping[str, Any]) -> AttributeDict:
    copies = AttributeDict()
    for key, value in values.items():
        try:
            copies[key] = copy.deepcopy(value)
        except Exception:  # what cannot be copied is kept as it is
            copies[key] = value
    return copies
