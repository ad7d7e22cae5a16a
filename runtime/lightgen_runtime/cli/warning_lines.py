"""Warnings of the runtime as lines for people."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Show warnings that blame a line of the runtime without that line.

    Those that blame the project's code, or another package's, still say where.
    """
    shown = warnings.formatwarning

    def line_of(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        line: str | None = None,
    ) -> str:
        if _PACKAGE in Path(filename).parents:
            return f"warning: {message}\n"
        return shown(message, category, filename, lineno, line)

    warnings.formatwarning = line_of
    try:
        yield
    finally:
        warnings.formatwarning = shown
