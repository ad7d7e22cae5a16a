"""Three versions of a block into one: the user's text, with the generator's changes.

For each slot: what the generator did not change stays as the user has it; what the user
did not change follows the generator; what both changed alike is done; what both changed
differently is a conflict, and nobody's to decide but the user's. Changes are edits of the
user's own text, so that order, layout and comments are the user's.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from typing import Literal

from lightgen.regen.edits import (
    Edit,
    above_comments,
    insertion_after,
    insertion_before,
    reindented,
    removal,
)
from lightgen.regen.nodes import Slot, method_slots
from lightgen.regen.text import SourceText, Span

Prefer = Literal["", "ours", "theirs"]


@dataclass(frozen=True)
class Version:
    """One version of a block: a method, and the text that it is in."""

    source: SourceText
    method: ast.FunctionDef

    @property
    def statements(self) -> list[Slot]:
        """Its statements, nested ones included."""
        return method_slots(self.source, self.method)

    def text_of(self, span: Span) -> str:
        """Return the characters of a span."""
        return self.source.text[span.start : span.end]


@dataclass(frozen=True)
class Conflict:
    """A slot that both sides changed.

    Attributes:
        slot: What it is, from the statement down.
        line: Where it is, or belongs, in the user's file; from 1.
        ours: The user's text; "" if the user took it out.
        theirs: The generator's text; "" if the generator takes it out.
    """

    slot: str
    line: int
    ours: str
    theirs: str


@dataclass
class Merge:
    """What a merge came to: edits of the user's text, and what they cannot settle."""

    edits: list[Edit] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)


def merge_versions(
    base: Version, ours: Version, theirs: Version, prefer: Prefer = ""
) -> Merge:
    """Bring what changed from `base` to `theirs` into `ours`.

    Args:
        base: What was generated last.
        ours: What the user has now.
        theirs: What is generated now.
        prefer: Whose version of a conflicting slot to take; "" for neither.
    """
    merger = _Merger(base, ours, theirs, prefer)
    merger.statements()
    return merger.result


class _Merger:
    """One merge under way."""

    def __init__(
        self, base: Version, ours: Version, theirs: Version, prefer: Prefer
    ) -> None:
        self.base, self.ours, self.theirs = base, ours, theirs
        self.prefer = prefer
        self.result = Merge()
        self.inserted = 0

    # ---- statements ----

    def statements(self) -> None:
        base = [slot for slot in self.base.statements if not slot.depth]
        theirs = [slot for slot in self.theirs.statements if not slot.depth]
        ours = self.ours.statements
        matched = {slot.key: _match(slot, ours) for slot in [*base, *theirs]}
        for slot in base:
            self._known(slot, matched[slot.key], _by_key(theirs, slot))
        anchor: Slot | None = None
        for slot in theirs:
            found = matched[slot.key]
            if _by_key(base, slot) is None:
                self._new_statement(slot, found, anchor, theirs, matched)
            # Several new statements in a row all stand behind the same one of the user's.
            anchor = found or anchor

    def _known(self, base: Slot, ours: Slot | None, theirs: Slot | None) -> None:
        """Merge a statement that was there before."""
        if theirs is not None and base.shape == theirs.shape:
            return
        if ours is None:
            if theirs is None:
                return
            inline = self._inline(base)
            if inline is not None and theirs.slots:
                self._value(base.slots[0], inline, theirs.slots[0], [base.name])
            else:
                self._conflict(base.name, None, None, theirs)
        elif theirs is None:
            if ours.shape == base.shape:
                self.result.edits.append(removal(self.ours.source, ours.span))
            else:
                self._conflict(base.name, ours, ours, None)
        elif base.slots and ours.slots and theirs.slots:
            self._value(base.slots[0], ours.slots[0], theirs.slots[0], [base.name])
        elif ours.shape == base.shape:
            self._replace(ours, theirs)
        elif ours.shape != theirs.shape:
            self._conflict(base.name, ours, ours, theirs)

    def _new_statement(
        self,
        slot: Slot,
        ours: Slot | None,
        anchor: Slot | None,
        theirs: list[Slot],
        matched: dict[tuple[str, ...], Slot | None],
    ) -> None:
        if ours is not None:
            if ours.shape != slot.shape:
                self._conflict(slot.name, ours, ours, slot)
            return
        source = self.ours.source
        self.inserted += 1
        number = theirs.index(slot)
        later = [(s, m) for s in theirs[number + 1 :] if (m := matched[s.key])]
        # The user may have moved what needs this statement above the anchor.
        needing = [m for s, m in later if self._needs(s, slot)]
        first = min(needing, key=lambda m: m.span.start, default=None)
        if anchor is None and later:
            first = first or later[0][1]
        if anchor is not None and (
            first is None or anchor.span.start < first.span.start
        ):
            place = source.line_end(max(anchor.span.end - 1, anchor.span.start))
            indent = source.indent(anchor.span.start)
        elif first is not None:
            place = above_comments(source, first.span.start)
            indent = source.indent(first.span.start)
        else:
            self._conflict(slot.name, None, None, slot)
            return
        needed = [m for s in theirs[:number] if (m := matched[s.key])]
        if any(m.span.start >= place and self._needs(slot, m) for m in needed):
            self._conflict(slot.name, first, None, slot)
            return
        text = self._moved(slot.span, indent)
        line = f"{indent}{text}{source.newline}"
        self.result.edits.append(Edit(Span(place, place), line, self.inserted))

    def _needs(self, slot: Slot, earlier: Slot) -> bool:
        """Tell whether a statement has to stay behind an earlier one."""
        if earlier.key[0] == "statement":  # done for its effect, on whatever follows
            return True
        assigned = set(re.findall(r"\w+", earlier.name))
        read = set(re.findall(r"[A-Za-z_]\w*", self.theirs.text_of(slot.span)))
        return earlier.key[0] == "assign" and bool(assigned & read)

    # ---- values ----

    def _value(self, base: Slot, ours: Slot, theirs: Slot, path: list[str]) -> None:
        """Merge one value, part by part where all three have the same parts."""
        if theirs.shape in (base.shape, ours.shape):
            return
        untouched = ours.shape == base.shape and not self._has_comments(ours)
        alike = base.kind == ours.kind == theirs.kind != "leaf"
        if base.kind == "call" and alike:
            was, now = base.slots[0].shape, theirs.slots[0].shape
            alike = ours.slots[0].shape in (was, now)
            alike = alike and not (untouched and was != now)
        if alike:
            self._parts(base, ours, theirs, path)
        elif untouched:
            self._replace_value(ours, theirs)
        elif (inner := _wrapped(base, ours) or self._named(base, ours)) is not None:
            self._value(base, inner, theirs, path)
        else:
            self._conflict(": ".join(path), ours, ours, theirs)

    def _inline(self, base: Slot) -> Slot | None:
        """Find a value that the user has where it is used, without a name of its own."""
        if not base.slots or base.slots[0].kind != "call":
            return None
        function = base.slots[0].slots[0].shape
        found = [
            slot
            for statement in self.ours.statements
            for slot in statement.walk()
            if slot.kind == "call" and slot.slots[0].shape == function
        ]
        return found[0] if len(found) == 1 else None

    def _named(self, base: Slot, ours: Slot) -> Slot | None:
        """Find the value in the statement that gives it the name that stands here."""
        name = self.ours.text_of(ours.value)
        if any(slot.name == name for slot in self.base.statements):
            return None
        found = [
            slot.slots[0]
            for slot in self.ours.statements
            if slot.key == ("assign", name) and slot.slots
        ]
        if len(found) != 1:
            return None
        alike = found[0].kind == base.kind != "leaf"
        return found[0] if alike or found[0].shape == base.shape else None

    def _parts(self, base: Slot, ours: Slot, theirs: Slot, path: list[str]) -> None:
        for part in base.slots:
            mine, new = ours.find(part.key), theirs.find(part.key)
            name = [*path, part.name]
            if new is not None and new.shape == part.shape:
                continue
            if mine is None:
                if new is not None:
                    self._conflict(": ".join(name), ours, None, new)
            elif new is not None:
                self._value(part, mine, new, name)
            elif mine.shape == part.shape:
                self.result.edits.append(removal(self.ours.source, mine.span))
            else:
                self._conflict(": ".join(name), mine, mine, None)
        for place, part in enumerate(theirs.slots):
            if base.find(part.key) is None:
                self._new_part(part, ours, theirs, place, [*path, part.name])

    def _new_part(
        self, part: Slot, ours: Slot, theirs: Slot, place: int, path: list[str]
    ) -> None:
        mine = ours.find(part.key)
        if mine is not None:
            if mine.shape != part.shape:
                self._conflict(": ".join(path), mine, mine, part)
            return
        self.inserted += 1
        source = self.ours.source
        before = [ours.find(s.key) for s in theirs.slots[:place]]
        behind = [ours.find(s.key) for s in theirs.slots[place + 1 :]]
        anchors = [s for s in before if s is not None and s.key[0] != "function"]
        followers = [s for s in behind if s is not None]
        if anchors:
            anchor, put = anchors[-1], insertion_after
        elif followers:
            anchor, put = followers[0], insertion_before
        elif ours.kind == "call":  # it has none of the generator's arguments
            lead = ", " if len(ours.slots) > 1 else ""
            text = lead + self._moved(part.span, source.indent(ours.span.start))
            at = ours.value.end - 1
            self.result.edits.append(Edit(Span(at, at), text, self.inserted))
            return
        else:
            self._conflict(": ".join(path), ours, None, part)
            return
        text = self._moved(part.span, source.indent(anchor.span.start))
        self.result.edits += put(source, anchor.span, text, self.inserted)

    # ---- edits ----

    def _replace(self, ours: Slot, theirs: Slot) -> None:
        if self._has_comments(ours):
            self._conflict(ours.name, ours, ours, theirs)
            return
        text = self._moved(theirs.span, self.ours.source.indent(ours.span.start))
        self.result.edits.append(Edit(ours.span, text))

    def _replace_value(self, ours: Slot, theirs: Slot) -> None:
        text = self._moved(theirs.value, self.ours.source.indent(ours.value.start))
        self.result.edits.append(Edit(ours.value, text))

    def _moved(self, span: Span, indent: str) -> str:
        old = self.theirs.source.indent(span.start)
        return reindented(self.theirs.text_of(span), old, indent, self.ours.source)

    def _has_comments(self, slot: Slot) -> bool:
        return bool(self.ours.source.comments_in(slot.span))

    def _conflict(
        self, name: str, near: Slot | None, ours: Slot | None, theirs: Slot | None
    ) -> None:
        """Settle a slot that both sides changed, if it is known whose counts."""
        if self.prefer == "ours":
            return
        if self.prefer == "theirs" and ours is not None:
            if theirs is None:
                self.result.edits.append(removal(self.ours.source, ours.span))
            else:
                text = self._moved(
                    theirs.span, self.ours.source.indent(ours.span.start)
                )
                self.result.edits.append(Edit(ours.span, text))
            return
        start = near.span.start if near else None
        line = self.ours.method.lineno
        if start is not None:
            line = self.ours.source.text.count("\n", 0, start) + 1
        self.result.conflicts.append(
            Conflict(
                name,
                line,
                self.ours.text_of(ours.span) if ours else "",
                self.theirs.text_of(theirs.span) if theirs else "",
            )
        )


def _by_key(slots: list[Slot], slot: Slot) -> Slot | None:
    return next((found for found in slots if found.key == slot.key), None)


def _match(slot: Slot, ours: list[Slot]) -> Slot | None:
    """Find the user's version of a statement, wherever it is; None if not for sure."""
    plain = (slot.key[0], _unnumbered(slot.key[-1]))
    same = [s for s in ours if (s.key[0], _unnumbered(s.key[-1])) == plain]
    if len(same) > 1:
        exact = [s for s in same if s.shape == slot.shape]
        alike = exact or [s for s in same if _function(s) == _function(slot)]
        same = alike or same
    return same[0] if len(same) == 1 else None


def _unnumbered(name: str) -> str:
    return name.rpartition(" (")[0] if name.endswith(")") and " (" in name else name


def _function(slot: Slot) -> str:
    """Return what a statement's value calls, "" if it is no call."""
    value = slot.slots[0] if slot.slots else slot
    return value.slots[0].shape if value.kind == "call" else ""


def _wrapped(base: Slot, ours: Slot) -> Slot | None:
    """Find the generator's value inside what the user put around it."""
    alike = [
        slot
        for slot in ours.walk()
        if slot is not ours
        and slot.kind == base.kind != "leaf"
        and (base.kind != "call" or slot.slots[0].shape == base.slots[0].shape)
    ]
    return alike[0] if len(alike) == 1 else None
