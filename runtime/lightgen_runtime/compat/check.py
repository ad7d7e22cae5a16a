"""Listing what a code base uses of Lightning that is absent or different here.

Files are read, never run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lightgen_runtime.compat.usage import Usage


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
    for file in files:
        if _is_of_others(file.relative_to(path)):
            continue
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError) as error:
            line = getattr(error, "lineno", None) or 1
            yield Finding(file, line, f"not readable as Python: {error}", works=False)
            continue
        for line, message, works in sorted(Usage(tree).findings()):
            yield Finding(file, line, message, works)


def _is_of_others(path: Path) -> bool:
    return any(part[0] == "." or part == "site-packages" for part in path.parts)
