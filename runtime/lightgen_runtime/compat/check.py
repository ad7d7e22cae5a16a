"""Listing what a code base uses of Lightning that is absent or different here.

Files are read, never run.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from lightgen_runtime.compat.behaviour import conditions_met
from lightgen_runtime.compat.codebase import CodeBase
from lightgen_runtime.compat.usage import Found, Usage


class Finding(NamedTuple):
    """One place in a code base.

    Attributes:
        path: The file.
        line: From 1.
        message: What is absent or different there, why, and what to do.
        works: Whether the code runs nevertheless.
    """

    path: Path
    line: int
    message: str
    works: bool


def check_path(path: Path) -> Iterator[Finding]:
    """Yield what the files below `path` use that is not here, or not the same.

    Args:
        path: A Python file, or a folder of them; hidden folders in it, and packages that
            are installed in it, are left out.
    """
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    read: dict[Path, ast.Module] = {}
    for file in files:
        if _is_of_others(file.relative_to(path)):
            continue
        try:
            read[file] = ast.parse(file.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError) as error:
            line = getattr(error, "lineno", None) or 1
            yield Finding(file, line, f"not readable as Python: {error}", works=False)
    for file, findings in _findings(read).items():
        for line, message, works in sorted(findings):
            yield Finding(file, line, message, works)


def _findings(files: dict[Path, ast.Module]) -> dict[Path, set[Found]]:
    code = CodeBase(files)
    usages = {file: Usage(file, tree, code) for file, tree in files.items()}
    follow_all(usages.values())
    met = {file: conditions_met(usage.read()) for file, usage in usages.items()}
    everywhere = frozenset().union(*met.values())
    shared = frozenset().union(
        *(met[file] for file in met if file not in code.programs)
    )
    return {
        file: usage.findings(
            met[file] | shared if file in code.programs else everywhere
        )
        for file, usage in usages.items()
    }


def follow_all(usages: Collection[Usage]) -> None:
    """Let each file learn from the others, whose classes may derive from its own."""
    before, known = -1, 0
    while before < known:
        before, known = known, sum(usage.follow() for usage in usages)


def _is_of_others(path: Path) -> bool:
    return any(part[0] == "." or part == "site-packages" for part in path.parts)
