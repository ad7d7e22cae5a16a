"""Text in columns, for terminals."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

_WIDEST = 100
_NARROWEST = 20  # however long the names before it


def columns(rows: Sequence[Sequence[Any]], right: set[int] | None = None) -> str:
    """Return rows as lines with aligned columns; those in `right` end together."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = []
    for *cells, last in texts:
        aligned = [
            cell.rjust(width) if place in (right or ()) else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=False))
        ]
        lines.append(hanging("".join(f"  {cell}" for cell in aligned) + "  ", last))
    return "\n".join(lines)


def hanging(start: str, text: str, indent: int | None = None) -> str:
    """Return `text` after `start`, wrapped to the terminal, its lines one below the other.

    Args:
        start: What the first line begins with.
        text: What is wrapped.
        indent: Of the other lines; None is the length of `start`.
    """
    columns = shutil.get_terminal_size().columns
    indent = len(start) if indent is None else indent
    width = max(columns - len(start), _NARROWEST)
    first, *rest = _wrapped(text, width) or [""]
    width = max(columns - indent, _NARROWEST)
    rest = _wrapped(" ".join(rest), width)
    return f"\n{'':<{indent}}".join([f"{start}{first}".rstrip(), *rest])


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def listing(values: Mapping[str, Any], indent: int = 0) -> str:
    """Return names and values, one a line; one that is very long is cut."""
    width = max(map(len, values), default=0)
    return "\n".join(
        hanging(f"{'':<{indent}}{name:<{width}}  ", _cut(str(value)))
        for name, value in values.items()
    )


def heading(title: str, body: str) -> str:
    """Return a block under its title."""
    return f"{title}\n{body}"


def size(count: int) -> str:
    """Return a number of bytes as people read it."""
    amount = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{count} bytes" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def number(count: int) -> str:
    """Return a count with its thousands apart."""
    return f"{count:,}"


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 3]}..."
