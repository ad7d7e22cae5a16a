"""The user's guide as `guide.md` tells it: sections, statements, examples."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import indent
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

import lightgen_runtime as L

PATH = Path(__file__).with_name("guide.md")
_EXAMPLE = re.compile(
    r"^- example (\w+): [^\n]*\n(?:- [^\n]*\n)*\n```python\n(.*?)```", re.S | re.M
)


class Statement(NamedTuple):
    """One line of the guide: where it stands, what it says, and what holds it."""

    section: str
    text: str
    tests: list[str]


def sections() -> list[str]:
    """Return the headings."""
    return re.findall(r"^## (.*)$", PATH.read_text("ascii"), re.M)


def statements() -> list[Statement]:
    """Return every statement, table row and example's title."""
    found, section = [], ""
    for line in _without_code().splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        elif line.startswith(("- ", "| ")):
            text, _, tests = line.partition(" -> ")
            found.append(Statement(section, text, re.findall(r"\w+", tests)))
    return found


def examples() -> dict[str, str]:
    """Return the code of each example by its name."""
    return dict(_EXAMPLE.findall(PATH.read_text("ascii")))


def code_blocks() -> int:
    """Return how many code blocks there are, named or not."""
    return PATH.read_text("ascii").count("```python\n")


def run_example(name: str, **names: Any) -> dict[str, Any]:
    """Run an example with the names that it leaves open, and return its names."""
    code = examples()[name].replace(
        "import lightning as L", "import lightgen_runtime as L"
    )
    return run_code(code, **names)


def run_code(code: str, **names: Any) -> dict[str, Any]:
    """Run code where the guide's imports are known, and return its names."""
    namespace = {"L": L, "torch": torch, "F": F, "DataLoader": DataLoader, **names}
    exec(compile(code, str(PATH), "exec"), namespace)
    return namespace


def class_of(code: str, base: type, **names: Any) -> Any:
    """Return a subclass of `base` whose body is the code of an example."""
    body = f"class Example(Base):\n{indent(code, '    ')}"
    return run_code(body, Base=base, **names)["Example"]


def example_class(name: str, base: type, **names: Any) -> Any:
    """Return a subclass of `base` with the methods of an example."""
    return class_of(examples()[name], base, **names)


def _without_code() -> str:
    return re.sub(r"```python\n.*?```", "", PATH.read_text("ascii"), flags=re.S)
