"""Listing what a code base uses of Lightning that the runtime does not have.

Files are read, never run.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from lightgen_runtime.compat.names import replaced


class Finding(NamedTuple):
    """One place in a code base.

    Attributes:
        path: The file.
        line: From 1.
        message: What is absent there.
    """

    path: Path
    line: int
    message: str


def check_path(path: Path) -> Iterator[Finding]:
    """Yield what the files below `path` import or pass that the runtime lacks.

    Args:
        path: A Python file, or a folder of them.
    """
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    for file in files:
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError) as error:
            line = getattr(error, "lineno", None) or 1
            yield Finding(file, line, f"not readable as Python: {error}")
            continue
        for line, message in sorted(_absent(tree)):
            yield Finding(file, line, message)


def _absent(tree: ast.Module) -> Iterator[tuple[int, str]]:
    trainers = {"Trainer"}
    packages: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                if replaced(name.name) is not None:
                    yield from _absent_module(node.lineno, name.name)
                    packages[name.asname or name.name.partition(".")[0]] = name.name
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from _absent_names(node)
            trainers |= {n.asname or n.name for n in node.names if n.name == "Trainer"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            package = packages.get(node.value.id)
            if package is not None and not _has(package, node.attr):
                yield node.lineno, f"`{package}.{node.attr}` is absent"
        elif isinstance(node, ast.Call) and _called(node) in trainers:
            yield from _absent_arguments(node)


def _absent_module(line: int, name: str) -> Iterator[tuple[int, str]]:
    try:
        import_module(str(replaced(name)))
    except ModuleNotFoundError:
        yield line, f"the module `{name}` is absent"


def _absent_names(node: ast.ImportFrom) -> Iterator[tuple[int, str]]:
    module = str(node.module)
    if replaced(module) is None:
        return
    missing = list(_absent_module(node.lineno, module))
    yield from missing
    if not missing:
        for name in node.names:
            if name.name != "*" and not _has(module, name.name):
                yield node.lineno, f"`{module}.{name.name}` is absent"


def _absent_arguments(node: ast.Call) -> Iterator[tuple[int, str]]:
    from lightgen_runtime.trainer.trainer import Trainer

    known = list(inspect.signature(Trainer).parameters)
    for keyword in node.keywords:
        if keyword.arg is not None and keyword.arg not in known:
            near = get_close_matches(keyword.arg, known, n=1)
            hint = f"; did you mean `{near[0]}`?" if near else ""
            yield keyword.lineno, f"`Trainer({keyword.arg}=...)` is absent{hint}"


def _has(module: str, name: str) -> bool:
    replacement = str(replaced(module))
    if hasattr(import_module(replacement), name):
        return True
    try:
        import_module(f"{replacement}.{name}")
    except ModuleNotFoundError:
        return False
    return True


def _called(node: ast.Call) -> str:
    function = node.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""
