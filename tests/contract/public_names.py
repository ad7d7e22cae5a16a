"""Every public name of the reference, and what stands for it here.

A *public module* is a module of `lightning.pytorch` without an underscore in its path. Its
*public names* are those in its `__all__`, those without an underscore that its source
defines at the top level, and those of Lightning that it imports without using them (which
makes an import a re-export); its loggers, warning caches and type variables are its own.
A *documented class* is one in some `__all__`, or in `ALSO_DOCUMENTED`: its members and
attributes are public names too. Arguments are those of every public function, of every
public class, and of every method of a documented class.

A key is a name without `lightning.pytorch.`: `callbacks.Timer`, `callbacks.Timer.setup`,
`Trainer(plugins)`, `Trainer.fit(model)`.
"""

from __future__ import annotations

import ast
import inspect
import pkgutil
import warnings
from collections.abc import Iterator
from enum import Enum, EnumMeta
from importlib import import_module
from importlib.util import find_spec
from logging import Logger
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import lightning
import torch
from lightning_utilities.core.rank_zero import WarningCache

import lightgen_runtime
from lightgen_runtime.compat.lookup import accepts, members_of

REFERENCE = "lightning.pytorch"
HERE = "lightgen_runtime.pytorch"
# Classes that no `__all__` names and that every guide does.
ALSO_DOCUMENTED = (
    "cli.LightningCLI",
    "cli.LightningArgumentParser",
    "cli.SaveConfigCallback",
    "core.optimizer.LightningOptimizer",
    "tuner.tuning.Tuner",
)
Parameter = inspect.Parameter
VARIABLE = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


class Name(NamedTuple):
    """One public name of the reference.

    Attributes:
        key: See the module's docstring.
        section: The module or documented class under which a reader looks for it.
        status: "same", "different" or "absent".
        finding: What is different, as far as it can be seen mechanically.
    """

    key: str
    section: str
    status: str
    finding: str = ""


def public_names() -> Iterator[Name]:
    """Yield every public name of the reference, module by module."""
    yield from _top_level_names()
    documented: dict[type, str] = {}
    compared: set[Any] = set()
    for module in _modules():
        section = _relative(module.__name__)
        here = _import_here(section)
        for name in sorted(_names_of(module), key=str.lower):
            value = getattr(module, name)
            key = f"{section}.{name}".lstrip(".")
            exported = name in getattr(module, "__all__", ())
            if isinstance(value, type) and (exported or key in ALSO_DOCUMENTED):
                documented.setdefault(value, key)
            if here is None or not hasattr(here, name):
                yield Name(key, section, "absent")
                continue
            yield Name(key, section, "same")
            is_new = inspect.isfunction(value) or isinstance(value, type)
            if is_new and value not in compared | documented.keys():
                compared.add(value)
                yield from compare_arguments(key, section, value, getattr(here, name))
    for cls, key in documented.items():
        yield from _class_names(cls, key, documented)


def _top_level_names() -> Iterator[Name]:
    for name in lightning.__all__:
        status = "same" if hasattr(lightgen_runtime, name) else "absent"
        yield Name(f"lightning.{name}", "lightning", status)
    fabric = find_spec("lightgen_runtime.fabric")
    yield Name("lightning.fabric", "lightning", "absent" if fabric is None else "same")


def _modules() -> Iterator[ModuleType]:
    root = import_module(REFERENCE)
    yield root
    for found in pkgutil.walk_packages(root.__path__, f"{REFERENCE}."):
        if not any(part.startswith("_") for part in found.name.split(".")):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of modules that deprecate themselves
                yield import_module(found.name)


def _relative(name: str) -> str:
    return name.removeprefix(REFERENCE).lstrip(".")


def _import_here(section: str) -> ModuleType | None:
    try:
        return import_module(f"{HERE}.{section}".rstrip("."))
    except ModuleNotFoundError:
        return None


def _names_of(module: ModuleType) -> set[str]:
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    found = set(getattr(module, "__all__", ()))
    for node in _top_level(tree.body):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {t.id for t in targets if isinstance(t, ast.Name)}
        elif isinstance(node, ast.ImportFrom) and _is_lightning(node.module):
            names = {alias.asname or alias.name for alias in node.names}
            found |= set() if hasattr(module, "__all__") else names - used
    return {name for name in found if _is_public(module, name)}


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try) and "TYPE_CHECKING" not in ast.dump(node):
            yield from _top_level(node.body)


def _is_lightning(name: str | None) -> bool:
    return str(name).partition(".")[0] == "lightning"


def _is_public(module: ModuleType, name: str) -> bool:
    value = getattr(module, name, None)
    own = (TypeVar, Logger, WarningCache, ModuleType)
    return hasattr(module, name) and name[0] != "_" and not isinstance(value, own)


# ---- classes ----


def _class_names(cls: type, key: str, documented: dict[type, str]) -> Iterator[Name]:
    section, _, name = key.rpartition(".")
    here = getattr(_import_here(section), name, None)
    if here is None:
        return  # one line for the class says it all
    yield from compare_arguments(key, key, cls, here)
    inherited: set[str] = set()
    for base in cls.__mro__[1:]:
        if base in documented or not _is_lightning(base.__module__):
            inherited |= members_of(base)
    own = {member for member in members_of(cls) - inherited if member[0] != "_"}
    for member in sorted(own | _overridden(cls)):
        full = f"{key}.{member}"
        if member not in members_of(here):
            yield Name(full, key, "absent")
            continue
        one, other = (inspect.getattr_static(c, member, None) for c in (cls, here))
        yield from _member(full, key, one, other)


def _overridden(cls: type) -> set[str]:
    """Methods that the class itself defines, though it inherits them."""
    own = vars(cls).items()
    return {
        n for n, v in own if n[0] != "_" and (callable(v) or hasattr(v, "__func__"))
    }


def _member(key: str, section: str, one: Any, other: Any) -> Iterator[Name]:
    one, other = (getattr(member, "__func__", member) for member in (one, other))
    methods = inspect.isfunction(one), inspect.isfunction(other)
    if methods == (True, False) and not callable(other):
        yield Name(key, section, "different", "an attribute, not a method")
    elif methods == (False, True):
        yield Name(key, section, "different", "a method, not an attribute")
    else:
        yield Name(key, section, "same")
    if methods == (True, True):
        yield from compare_arguments(key, section, one, other)


# ---- arguments ----


def compare_arguments(key: str, section: str, one: Any, other: Any) -> Iterator[Name]:
    """Yield the arguments of the reference's function `one` as `other` has them."""
    theirs, ours = _parameters(one), _parameters(other)
    if theirs is None or ours is None:
        return
    kinds = {p.kind for p in ours.values()}
    anything = kinds.issuperset(VARIABLE)
    positions = [
        n for n, p in ours.items() if p.kind is Parameter.POSITIONAL_OR_KEYWORD
    ]
    for index, parameter in enumerate(theirs.values()):
        name = parameter.name
        if parameter.kind in VARIABLE:
            continue
        argument = f"{key}({name})"
        if name not in ours and Parameter.VAR_KEYWORD in kinds and accepts(other, name):
            status = "same" if anything else "different"
            yield Name(argument, section, status, "by keyword only")
        elif name not in ours:
            yield Name(argument, section, "absent")
        elif _default(ours[name]) != _default(parameter) != "required":
            finding = f"{_default(ours[name])}, not {_default(parameter)}"
            yield Name(argument, section, "different", finding)
        elif (
            parameter.kind is Parameter.POSITIONAL_OR_KEYWORD
            and not anything
            and positions[index : index + 1] != [name]
        ):
            yield Name(argument, section, "different", "at another position")
        else:
            yield Name(argument, section, "same")
    if not any(p.kind is Parameter.VAR_POSITIONAL for p in theirs.values()):
        yield from _new_arguments(key, section, theirs, ours)


def _new_arguments(
    key: str,
    section: str,
    theirs: dict[str, inspect.Parameter],
    ours: dict[str, inspect.Parameter],
) -> Iterator[Name]:
    for name, parameter in ours.items():
        required = parameter.kind not in VARIABLE and _default(parameter) == "required"
        if required and name not in theirs:
            yield Name(f"{key}({name})", section, "different", "required, and new here")


def _parameters(function: Any) -> dict[str, inspect.Parameter] | None:
    if isinstance(function, EnumMeta):
        return None  # its members are made already
    try:
        found = dict(inspect.signature(inspect.unwrap(function)).parameters)
    except (TypeError, ValueError):
        return None
    found.pop("self", None)
    found.pop("cls", None)
    return found


def _default(parameter: inspect.Parameter) -> str:
    value = parameter.default
    return "required" if value is Parameter.empty else f"`{_shown(value)}`"


def _shown(value: Any) -> str:
    """Write a default; a class or function by its name alone, whose package differs."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_shown, value))})"
    if isinstance(value, type) or inspect.isroutine(value):
        return value.__name__
    if isinstance(value, Enum):
        return repr(value.value)
    return repr(str(value) if isinstance(value, torch.device) else value)
