"""The next version of a block whose code may be anybody's.

What the code says is read first. Where the user wrote the same thing in other words or
another form, the merge is made in the user's words, or in the generator's form; and where
the code said what the project remembers, the merged code must say what was asked for.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import replace

from lightgen.blocks.module_file import is_manual
from lightgen.blocks.respelling import respelled
from lightgen.blocks.rewriting import rewritten
from lightgen.optim.conformity import unknown_argument
from lightgen.optim.emit import emit
from lightgen.optim.reading.method import Reading, read_method
from lightgen.optim.spec import OptimSpec
from lightgen.regen.block import Generated, Outcome, Place, regenerate, status_of
from lightgen.regen.locate import Location, locate, parse_file
from lightgen.regen.merge import Conflict, Prefer, Version
from lightgen.regen.text import SourceText


def emitted(spec: OptimSpec, class_: ast.ClassDef) -> Generated:
    """Return what the generator writes for a class."""
    return Generated(*emit(spec, manual=is_manual(class_)))


def reading_of(source: SourceText, location: Location) -> Reading:
    """Read the method of a class."""
    assert location.method is not None
    return read_method(source.tree, location.class_, location.method, source.names.path)


def merge_block(
    text: str,
    place: Place,
    former: OptimSpec | None,
    base: Generated | None,
    new: Generated,
    *,
    prefer: Prefer = "",
) -> Outcome:
    """Bring the next version of a block into a file.

    Args:
        text: The file.
        place: Where the block is in it.
        former: What the project remembers; None for a new block.
        base: What was generated for it; None to put the method in for the first time.
        new: What is generated now.
        prefer: Whose version of a conflicting slot to take; "" for neither.

    Raises:
        BlockNotFoundError: The block is not where it should be.
        VerificationError: The result is not what it should be; a defect of ours.
    """
    source = parse_file(text, place.path)
    location = locate(source, place.path, place.class_name, place.method)
    reading = reading_of(source, location) if location.method is not None else None
    if former is None or base is None or reading is None or reading.spec is None:
        return regenerate(text, place, base, new, prefer=prefer, check=unknown_argument)
    merge = _Merge(text, place, source, location, reading, former, base, new)
    outcome = merge.best()
    if outcome.conflicts and prefer:
        outcome = merge.attempt(text, lengths=True, prefer=prefer)
    assert location.method is not None
    status = status_of(Version(source, location.method), base)
    return replace(outcome, status=status)


class _Merge:
    """The ways to merge one block, the most cautious first."""

    def __init__(
        self,
        text: str,
        place: Place,
        source: SourceText,
        location: Location,
        reading: Reading,
        former: OptimSpec,
        base: Generated,
        new: Generated,
    ) -> None:
        assert reading.spec is not None
        self.text, self.place, self.source = text, place, source
        self.location, self.reading = location, reading
        self.base, self.new = base, new
        self.now = emitted(reading.spec, location.class_)
        # Whether the code says what the project remembers.
        self.is_known = emitted(former, location.class_).text == self.now.text

    def best(self) -> Outcome:
        """Return the first that works; else the conflicts that no form can avoid."""
        found: list[Outcome] = []
        for way in self._ways():
            outcome = way()
            if outcome is None:
                continue
            found.append(outcome)
            if not outcome.conflicts and not self._leaves_unused(outcome.text):
                return outcome
        return next((o for o in found if not o.conflicts), found[-1])

    def _ways(self) -> list[Callable[[], Outcome | None]]:
        ways: list[Callable[[], Outcome | None]] = [
            lambda: self._judged(self.attempt(self.text, lengths=True), in_place=True),
            lambda: self._in_our_form(lengths=True),
            lambda: self._in_our_form(lengths=False),
        ]
        # What is written over the old block would take unknown edits with it.
        return [*ways, self._written_anew] if self.is_known else ways

    def _leaves_unused(self, text: str) -> bool:
        """Tell whether a variable that was part of the result is now for nothing."""
        place = self.place
        location = locate(SourceText(text), place.path, place.class_name, place.method)
        assert location.method is not None
        used = {
            (ast.unparse(node), type(node.ctx) is ast.Store)
            for node in ast.walk(location.method)
            if isinstance(node, ast.Name)
        }
        return any(
            (name, True) in used and (name, False) not in used
            for name in self.reading.body.relevant
        )

    def _in_our_form(self, *, lengths: bool) -> Outcome | None:
        """Write the method in the generator's form first, None if that does not work.

        Args:
            lengths: Whether lengths of the run stay as the user asks for them.
        """
        text = self._rewritten(self.now, lengths=lengths)
        if text is None:
            return None
        return self._judged(self.attempt(text, lengths=lengths))

    def _written_anew(self) -> Outcome | None:
        """Write the new block over the old, None if something would be lost."""
        text = self._rewritten(self.new, lengths=False)
        if text is None:
            return None
        new = self._spelled(self.new, lengths=False)
        old = replace(new, imports=(*self.base.imports, *self._imports()))
        return self._judged(regenerate(text, self.place, old, new))

    def _rewritten(self, generated: Generated, *, lengths: bool) -> str | None:
        assert self.location.method is not None
        new = self._spelled(generated, lengths=lengths)
        return rewritten(self.source, self.location.method, self.reading, new)

    def attempt(self, text: str, *, lengths: bool, prefer: Prefer = "") -> Outcome:
        base = self._spelled(self.base, lengths=lengths)
        base = replace(base, imports=(*base.imports, *self._imports()))
        new = self._spelled(self.new, lengths=lengths)
        return regenerate(
            text, self.place, base, new, prefer=prefer, check=unknown_argument
        )

    def _spelled(self, generated: Generated, *, lengths: bool) -> Generated:
        return respelled(
            generated, self.now, self.reading, self.source, lengths=lengths
        )

    def _judged(self, outcome: Outcome, *, in_place: bool = False) -> Outcome:
        """Turn a result that does not say what was asked for into a conflict."""
        method = self.location.method
        assert method is not None
        conflicts = outcome.conflicts
        if not conflicts and self.is_known and not self._says(outcome.text):
            fault = "the merged block would not be what the options ask for"
            conflicts = (Conflict(fault, method.lineno, "", ""),)
        if not conflicts:
            return outcome
        if not in_place:  # lines of another form are none of the user's file
            conflicts = tuple(replace(c, line=method.lineno) for c in conflicts)
        return Outcome(self.text, outcome.status, conflicts)

    def _says(self, text: str) -> bool:
        """Tell whether a file's block says what was asked for."""
        source = SourceText(text)
        place = self.place
        location = locate(source, place.path, place.class_name, place.method)
        spec = reading_of(source, location).spec
        return spec is not None and (
            emitted(spec, location.class_).text == self.new.text
        )

    def _imports(self) -> list[str]:
        """Return the imports of torch's names that the method uses, which may fall away."""
        method = self.location.method
        assert method is not None
        used = {node.id for node in ast.walk(method) if isinstance(node, ast.Name)}
        found = []
        for node in self.source.tree.body:
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith(
                "torch"
            ):
                names = [
                    alias.name
                    for alias in node.names
                    if alias.asname is None and alias.name in used
                ]
                found += [f"from {node.module} import {name}" for name in names]
        return found
