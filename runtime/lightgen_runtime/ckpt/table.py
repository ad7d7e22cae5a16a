"""Text in columns, for terminals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_WIDEST = 100


def columns(rows: Sequence[Sequence[Any]], right: set[int] | None = None) -> str:
    """Return rows as lines with aligned columns; those in `right` end together."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return "\n".join(
        "  "
        + "  ".join(
            cell.rjust(width) if place in (right or ()) else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in texts
    )


def listing(values: Mapping[str, Any], indent: int = 0) -> str:
    """Return names and values, one a line; a value that is long is cut."""
    width = max(map(len, values), default=0)
    return "\n".join(
        f"{'':<{indent}}{name:<{width}}  {_cut(str(value))}"
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
