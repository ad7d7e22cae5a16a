"""Whether the catalogue describes the torch that is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightgen.optim.arguments import REQUIRED
from lightgen.optim.catalogue import BY_PATH, IMPLIED
from lightgen.optim.entries import Entry

LIMIT_S = 120
"""How long the import of torch may take."""

_SCRIPT = """
import sys
sys.path[:] = [folder for folder in sys.path if folder]
import inspect, json
try:
    import torch
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    print(json.dumps(None))
    sys.exit()
schedulers, classes = torch.optim.lr_scheduler, {}
for home, base in (
    (torch.optim, torch.optim.Optimizer),
    (schedulers, schedulers.LRScheduler),
):
    for name, found in vars(home).items():
        if name.startswith("_") or not inspect.isclass(found) or found is base:
            continue
        if issubclass(found, base):
            classes[f"{home.__name__}.{name}"] = {
                p.name: {} if p.default is p.empty else {"default": p.default}
                for p in inspect.signature(found).parameters.values()
            }
print(json.dumps({"version": torch.__version__, "classes": classes}, default=str))
"""
_COMPOSITIONS = {"SequentialLR", "ChainedScheduler", "LRScheduler"}

Signature = Mapping[str, Mapping[str, Any]]
"""Arguments of a constructor; one that is not required has a `default`."""


@dataclass(frozen=True)
class Installed:
    """The torch beside this lightgen.

    Attributes:
        version: Its release.
        classes: Signature of each optimizer and scheduler, by dotted name.
    """

    version: str
    classes: Mapping[str, Signature]


@dataclass(frozen=True)
class Drift:
    """One difference between the catalogue and torch.

    Attributes:
        subject: The class, and the argument if it is about one.
        text: What differs.
        breaks: Whether code that lightgen writes may fail for it.
    """

    subject: str
    text: str
    breaks: bool


def read_installed() -> Installed | None:
    """Ask the torch that this Python has, in a process of its own.

    Returns:
        None if there is none.

    Raises:
        ImportError: It is there, and cannot be used.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ImportError(f"not imported within {LIMIT_S} s") from error
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ImportError(said[-1])
    found = json.loads(lines[-1])
    return Installed(**found) if found is not None else None


def drift(classes: Mapping[str, Signature]) -> list[Drift]:
    """Compare signatures of torch with the catalogue."""
    found: list[Drift] = []
    for path, entry in BY_PATH.items():
        if path in classes:
            found += _argument_drift(entry, classes[path])
        else:
            text = f"torch has it since {entry.since}, and this one does not"
            found.append(Drift(entry.class_name, text, breaks=True))
    for path in classes:
        name = path.rpartition(".")[2]
        if path not in BY_PATH and name not in _COMPOSITIONS:
            found.append(Drift(name, "torch has it, the catalogue not", breaks=False))
    return found


def _argument_drift(entry: Entry, signature: Signature) -> list[Drift]:
    found = []
    for argument in entry.arguments:
        subject = f"{entry.class_name}.{argument.name}"
        if argument.name not in signature:
            text = "the catalogue has it, this torch not"
            found.append(Drift(subject, text, breaks=True))
            continue
        theirs = signature[argument.name].get("default", REQUIRED)
        ours = json.loads(json.dumps(argument.default))
        if ours != theirs:
            text = f"the default is {theirs!r} in torch, {ours!r} in the catalogue"
            found.append(Drift(subject, text, breaks=theirs == REQUIRED))
    for name, parameter in signature.items():
        if name not in IMPLIED and not entry.has(name):
            text = "torch has it, the catalogue not"
            needed = "default" not in parameter
            found.append(Drift(f"{entry.class_name}.{name}", text, breaks=needed))
    return found
