"""Putting together what was dealt out in turn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any

_NOTHING = object()


def in_turn(parts: Iterable[Sequence[Any]]) -> list[Any]:
    """Return the first of each part, then the second of each that has one, and so on.

    Example:
        >>> in_turn([["a", "c"], ["b"]])
        ['a', 'b', 'c']
    """
    turns = zip_longest(*parts, fillvalue=_NOTHING)
    return [one for turn in turns for one in turn if one is not _NOTHING]
