"""A three-way merge by lines: the generator's change, brought into the user's text."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace

# What a line sets: an option of `sbatch`, which is read wherever it stands, or a key of YAML.
_BATCH_OPTION = re.compile(r"#SBATCH\s+--[\w-]+")
_KEY = re.compile(r"\s*[\w./-]+:(?=\s)")


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
        """Tell whether some line is in both, or both give one setting two values."""
        if self.start < other.end and other.start < self.end:
            return True
        mine = {_setting(line) for line in self.lines if line not in other.lines}
        both = mine & {_setting(line) for line in other.lines} - {""}
        is_here = self.start == other.start
        return any(is_here or _BATCH_OPTION.match(setting) for setting in both)

    def without(self, others: list[_Change]) -> _Change:
        """Leave out what others put in here, too; an option of `sbatch` anywhere."""
        if self.start != self.end:
            return self
        here = {line for o in others if o.start == self.start for line in o.lines}
        there = {line for o in others for line in o.lines if _BATCH_OPTION.match(line)}
        kept = [line for line in self.lines if line not in here | there]
        return replace(self, lines=kept)


def merge_lines(base: str, ours: str, theirs: str) -> tuple[str, list[LineConflict]]:
    """Bring the change from `base` to `theirs` into `ours`.

    Changes of neighbouring lines do not disturb each other: each line of a job file
    stands for itself. Where both put lines in at one place, both stay, unless they set the
    same thing: that is a conflict, as two values of one line are.

    Returns:
        The merged text, and what both changed differently; with any, the text is `ours`.
    """
    if not ours.endswith("\n"):
        text, conflicts = merge_lines(base, f"{ours}\n", theirs)
        return text.removesuffix("\n"), conflicts
    lines = base.splitlines(keepends=True)
    mine, new = _changes(lines, ours), _changes(lines, theirs)
    wanted = [w.without(mine) for w in new if not any(_same(w, m) for m in mine)]
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


def _setting(line: str) -> str:
    """Return the name of what a line sets; "" if it sets nothing that is known."""
    found = _BATCH_OPTION.match(line) or _KEY.match(line)
    return found.group() if found else ""
