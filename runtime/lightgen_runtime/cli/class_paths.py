"""Finding the class that a `class_path` names, or why there is none."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping
from functools import partial
from types import ModuleType
from typing import Any

from lightgen_runtime.cli.suggestion import did_you_mean


class ClassPathError(Exception):
    """A `class_path` names no class that fits; the message says what is wrong."""


def find_class(class_path: object, bases: tuple[type, ...]) -> type:
    """Return the class at `class_path`.

    Args:
        class_path: `package.module.Class`, or only the class's name if some class
            already imported has it.
        bases: The classes of which it must be a subclass; empty for any.

    Raises:
        ClassPathError: There is no such class, or it is none of `bases`.
    """
    if not isinstance(class_path, str):
        raise ClassPathError(
            f"got {class_path!r}, expected a name like `package.module.Class`"
        )
    find = _import_class if "." in class_path else partial(_known_subclass, bases)
    found = find(class_path)
    if bases and not issubclass(found, bases):
        expected = " or ".join(base.__name__ for base in bases)
        raise ClassPathError(f"`{class_path}` is not a subclass of {expected}")
    return found


def missing_keys(cls: type, given: Mapping[str, object]) -> list[str]:
    """Return the arguments without a default that `given` does not name."""
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [
        f"`{name}`"
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.default is inspect.Parameter.empty
        and parameter.kind not in variadic
        and name not in given
    ]


def _import_class(class_path: str) -> type:
    module_name, _, name = class_path.rpartition(".")
    module = _import_module(module_name)
    if not hasattr(module, name):
        raise ClassPathError(
            f"module `{module_name}` has no `{name}`"
            f"{did_you_mean(name, _class_names(module))}"
        )
    found = getattr(module, name)
    if not inspect.isclass(found):
        raise ClassPathError(f"`{class_path}` is not a class but {found!r:.60}")
    return found


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if not (name == missing or name.startswith(f"{missing}.")):
            raise ClassPathError(
                f"importing `{name}` failed: it needs `{missing}`, which is not "
                "installed"
            ) from error
        raise ClassPathError(
            f"there is no module `{missing}`{_nearest_module(missing)}"
        ) from error
    except Exception as error:  # the module is the user's own code
        raise ClassPathError(
            f"importing `{name}` failed: {type(error).__name__}: {error}"
        ) from error


def _nearest_module(missing: str) -> str:
    parent, _, name = missing.rpartition(".")
    if not parent:
        return ""
    names = _public_names(importlib.import_module(parent))
    return did_you_mean(name, names)


def _class_names(module: ModuleType) -> list[str]:
    """Return the names of classes, and what the module may load lazily."""
    loaded = [name for name, value in vars(module).items() if inspect.isclass(value)]
    return [*loaded, *getattr(module, "__all__", ())]


def _public_names(module: ModuleType) -> list[str]:
    """Return the public names that a module has so far."""
    return [name for name in dir(module) if not name.startswith("_")]


def _known_subclass(bases: tuple[type, ...], name: str) -> type:
    known = {cls.__name__: cls for base in bases for cls in _subclasses(base)}
    if name not in known:
        raise ClassPathError(
            f"no known class is called `{name}`{did_you_mean(name, known)} "
            "(other classes need their full name: `package.module.Class`)"
        )
    return known[name]


def _subclasses(base: type[Any]) -> Iterator[type]:
    yield base
    for subclass in base.__subclasses__():
        yield from _subclasses(subclass)
