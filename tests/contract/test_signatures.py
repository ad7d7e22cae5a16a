"""Constructors and public methods of callbacks, loggers, profilers, tuner and CLI.

They take the same arguments, in the same order and with the same defaults, as those of
Lightning.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from enum import Enum
from typing import Any

import pytest
import torch

OURS, REFERENCE = "lightgen_runtime", "lightning"
PACKAGES = ("callbacks", "loggers", "profilers", "tuner", "cli")

NAMES = {
    "tuner": ["Tuner"],
    "cli": [
        *("LightningCLI", "LightningArgumentParser", "SaveConfigCallback"),
        "ReduceLROnPlateau",
    ],
}

# What Lightning has and the runtime does not, with the reason.
ABSENT = {
    "CometLogger": "needs an account with a service",
    "LitLogger": "needs an account with a service",
    "XLAProfiler": "for TPUs",
}
# Defaults are looks, which are other ones.
LOOKS = {"RichProgressBar", "RichProgressBarTheme"}
# Arguments that the runtime refuses because nothing would come of them.
REFUSED = {"ModelSummary": ["summarize_kwargs"]}
OTHER_MEMBERS = {
    "ModelSummary.summarize": "draws tables of the reference",
    "RichModelSummary.summarize": "draws tables of the reference",
}


def public_classes() -> Iterator[tuple[str, str]]:
    for package in PACKAGES:
        module = importlib.import_module(f"{REFERENCE}.pytorch.{package}")
        for name in NAMES.get(package) or module.__all__:
            if inspect.isclass(getattr(module, name)) and name not in ABSENT:
                yield package, name


def found(namespace: str, package: str, name: str) -> Any:
    module = importlib.import_module(f"{namespace}.pytorch.{package}")
    return getattr(module, name)


def default(value: Any) -> Any:
    """Return a default as what two packages can have in common."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, torch.device):
        return str(value)
    if inspect.isfunction(value) or inspect.isclass(value):
        return value.__name__
    return type(value).__name__ if "object at" in repr(value) else value


def arguments(function: Any) -> list[tuple[str, Any, Any]]:
    return [
        (p.name, p.kind, default(p.default))
        for p in inspect.signature(function).parameters.values()
        # Texts differ, and `unknown` is there to say which name is the nearest.
        if p.name not in ("self", "description", "unknown")
    ]


CLASSES = sorted(public_classes())


@pytest.mark.parametrize(("package", "name"), CLASSES)
def test_constructors(package: str, name: str) -> None:
    ours, theirs = (arguments(found(n, package, name)) for n in (OURS, REFERENCE))
    theirs = [a for a in theirs if a[0] not in REFUSED.get(name, [])]
    if name in LOOKS:
        ours, theirs = ([a[:2] for a in side] for side in (ours, theirs))
    assert ours == theirs


@pytest.mark.parametrize(("package", "name"), CLASSES)
def test_public_members(package: str, name: str) -> None:
    ours, theirs = (found(n, package, name) for n in (OURS, REFERENCE))
    members = {member for member in dir(theirs) if not member.startswith("_")}
    missing = members - set(dir(ours))
    known = {m.partition(".")[2] for m in OTHER_MEMBERS if m.startswith(f"{name}.")}
    assert missing == known


def test_what_is_absent() -> None:
    missing = set()
    for package in ("callbacks", "loggers", "profilers"):
        theirs = importlib.import_module(f"{REFERENCE}.pytorch.{package}")
        ours = importlib.import_module(f"{OURS}.pytorch.{package}")
        missing |= {name for name in theirs.__all__ if not hasattr(ours, name)}
    assert missing == set(ABSENT)


def test_aliases_of_the_command_line() -> None:
    names = ["ArgsType", "OptimizerCallable", "LRSchedulerCallable"]
    names += ["LRSchedulerType", "LRSchedulerTypeTuple", "LRSchedulerTypeUnion"]
    names += ["instantiate_class", "instantiate_module"]
    for name in names:
        assert hasattr(importlib.import_module(f"{OURS}.pytorch.cli"), name), name
