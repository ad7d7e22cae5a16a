"""Doing to one text what was done to another, where the two do not touch."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

APART = 3
"""Least number of common lines between two changes that do not touch.

Source: the lines of context that `diff -u` shows and `patch` asks for.
"""


@dataclass(frozen=True)
class _Change:
    """Lines `start` to `end` of the common text, replaced by others."""

    start: int
    end: int
    lines: list[bytes]


def transplant(common: bytes, changed: bytes, mine: bytes) -> bytes | None:
    """Bring the change from `common` to `changed` into `mine`.

    Every line of both changes is in the result, so nothing of `mine` is lost.

    Returns:
        The result; None if the change comes close to one in `mine`.
    """
    lines = common.splitlines(keepends=True)
    changes = _changes(lines, changed) + _changes(lines, mine)
    changes.sort(key=lambda change: (change.start, change.end))
    result: list[bytes] = []
    at = 0
    for number, change in enumerate(changes):
        if number and change.start - at < APART:
            return None
        result += [*lines[at : change.start], *change.lines]
        at = change.end
    return b"".join([*result, *lines[at:]])


def _changes(lines: list[bytes], text: bytes) -> list[_Change]:
    """Return the changes that lead to a text; near ones count as one."""
    new = text.splitlines(keepends=True)
    if new == lines:
        return []
    matcher = difflib.SequenceMatcher(None, lines, new, autojunk=False)
    changes = []
    for group in matcher.get_grouped_opcodes(APART):
        inner = [code for code in group if code[0] != "equal"]
        start, end = inner[0][1], inner[-1][2]
        changes.append(_Change(start, end, new[inner[0][3] : inner[-1][4]]))
    return changes
