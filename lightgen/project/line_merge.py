"""A three-way merge by lines: the generator's change, brought into the user's text."""

from __future__ import annotations

import difflib
from dataclasses import dataclass


@dataclass(frozen=True)
class LineConflict:
    """Lines that both sides changed.

    Attributes:
        line: Number of the first of them in the user's text, from 1.
        ours: The user's.
        theirs: The generator's.
    """

    line: int
    ours: str
    theirs: str


@dataclass(frozen=True)
class _Change:
    """Lines `start` to `end` of the base become those of a text from `at` on."""

    start: int
    end: int
    at: int
    lines: list[str]

    def meets(self, other: _Change) -> bool:
        """Tell whether some line is in both; lines put in between are not."""
        return self.start < other.end and other.start < self.end


def merge_lines(base: str, ours: str, theirs: str) -> tuple[str, list[LineConflict]]:
    """Bring the change from `base` to `theirs` into `ours`.

    Changes of neighbouring lines do not disturb each other: each line of a job file
    stands for itself. Where both put lines in at one place, both stay.

    Returns:
        The merged text, and what both changed differently; with any, the text is `ours`.
    """
    lines = base.splitlines(keepends=True)
    mine, new = _changes(lines, ours), _changes(lines, theirs)
    wanted = [change for change in new if not any(_same(change, m) for m in mine)]
    clashes = [(m, w) for w in wanted for m in mine if m.meets(w)]
    if clashes:
        return ours, [
            LineConflict(m.at + 1, "".join(m.lines), "".join(w.lines))
            for m, w in clashes
        ]
    # The generator's first, where both put something in.
    changes = sorted([*wanted, *mine], key=lambda change: (change.start, change.end))
    result: list[str] = []
    at = 0
    for change in changes:
        result += [*lines[at : change.start], *change.lines]
        at = change.end
    return "".join([*result, *lines[at:]]), []


def _changes(lines: list[str], text: str) -> list[_Change]:
    new = text.splitlines(keepends=True)
    matcher = difflib.SequenceMatcher(None, lines, new, autojunk=False)
    changes = []
    for tag, start, end, at, to in matcher.get_opcodes():
        if tag == "equal":
            continue
        if (
            end - start == to - at
        ):  # line by line, so that only a changed line conflicts
            changes += [
                _Change(start + i, start + i + 1, at + i, [new[at + i]])
                for i in range(end - start)
            ]
        else:
            changes.append(_Change(start, end, at, new[at:to]))
    return changes


def _same(one: _Change, other: _Change) -> bool:
    return (one.start, one.end, one.lines) == (other.start, other.end, other.lines)
