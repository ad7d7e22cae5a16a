"""A hand-written method in the generator's form, with everything of the user's kept.

Only statements that make the result are written anew. Every other statement stays, and
every comment stays where what it was about now is; if one could not, nothing is done.
"""

from __future__ import annotations

import ast

from lightgen.blocks.respelling import RUN_LENGTHS
from lightgen.blocks.statements import (
    Own,
    Written,
    attach_comments,
    commented,
    loaded_names,
    own_statements,
    stored_names,
)
from lightgen.optim.reading.method import Reading
from lightgen.regen.block import Generated
from lightgen.regen.edits import Edit, apply_edits, reindented
from lightgen.regen.flow import assigned_names, unassigned_names
from lightgen.regen.nodes import is_docstring
from lightgen.regen.text import SourceText, Span

_ANY = ("Any", "object", "OptimizerLRScheduler")


def rewritten(
    source: SourceText, method: ast.FunctionDef, reading: Reading, new: Generated
) -> str | None:
    """Return the whole file with the method in the generator's form.

    Args:
        source: The file.
        method: The method.
        reading: What it says.
        new: What the generator writes, in the user's words.

    Returns:
        None if something of the user's would be lost.
    """
    text = _Rewriter(source, method, reading, new).text()
    if text is None or not _keeps_comments(source, method, text):
        return None
    return text


class _Rewriter:
    def __init__(
        self,
        source: SourceText,
        method: ast.FunctionDef,
        reading: Reading,
        new: Generated,
    ) -> None:
        self.source = source
        self.method = method
        self.reading = reading
        self.new = new.version
        self.owns = own_statements(source, method)

    def text(self) -> str | None:
        """Return the whole file, None if it cannot be done."""
        owns = self.owns
        result = self.reading.body.result
        if not owns or result is None or owns[-1].node is not result:
            return None
        first, last = owns[0].node, owns[-1].node
        written = self._written()
        kept = self._kept(written)
        if kept is None:
            return None
        lines = self._lines(written, kept)
        start = self._line_offset(first.lineno - len(owns[0].above))
        assert last.end_lineno is not None
        end = self._line_offset(last.end_lineno + 1)
        newline = self.source.newline
        body = "".join(f"{line}{newline}" for line in lines)
        edits = [Edit(Span(start, end), body), *self._annotation()]
        return apply_edits(self.source.text, edits)

    # ---- the generator's statements ----

    def _written(self) -> list[Written]:
        body = self.new.method.body
        body = body[1:] if is_docstring(body[0]) else body
        indent = self.owns[0].indent
        written = []
        for node in body:
            text = reindented(self.new.source.of(node), "        ", indent, self.source)
            lines = f"{indent}{text}".split(self.source.newline)
            written.append(Written(node, lines, self._origin(node)))
        unused = _unused_lengths(body)
        written = [each for each in written if each.node not in unused]
        for each in written:
            self._take_over(each)
        return written

    def _take_over(self, each: Written) -> None:
        """Leave a statement as the user wrote it, if it says the same."""
        own = each.origin
        if own is None or isinstance(each.node, ast.Return):
            return
        if self.source.shape(own.node) == self.new.source.shape(each.node):
            each.lines = list(own.lines)
            own.comments = []

    def _origin(self, node: ast.stmt) -> Own | None:
        if isinstance(node, ast.Return):
            return self.owns[-1]
        if isinstance(node, ast.Assign):
            target = ast.unparse(node.targets[0])
            for made in self.reading.made:
                if (made.name or made.variable) == target:
                    return self._holder(made.node)
        same = [o for o in self.owns if ast.dump(o.node) == ast.dump(node)]
        return same[0] if same else None

    def _holder(self, node: ast.expr) -> Own | None:
        for own in self.owns:
            if own.node.lineno <= node.lineno <= (own.node.end_lineno or 0):
                return own
        return None

    # ---- what stays ----

    def _kept(self, written: list[Written]) -> set[int] | None:
        """Return which of the user's statements stay, None if they cannot."""
        body = self.reading.body
        makers: dict[ast.stmt, set[str]] = {}
        for name in body.relevant:
            for statement in body.makers.get(name, ()):
                makers.setdefault(statement, set()).add(name)
        origins = {id(each.origin.node) for each in written if each.origin}
        # An optimizer or scheduler that is no longer returned would still set rates.
        making = {
            id(own.node)
            for call in self.reading.calls
            if (own := self._holder(call.node)) is not None
        }
        named = {made.name for made in self.reading.made if made.name}
        made = {n for each in written for n in stored_names(each.node)}
        read = {n for each in written for n in loaded_names(each.node)} - made
        kept: set[int] = set()
        growing = True
        while growing:
            growing = False
            for own in self.owns:
                node = own.node
                if id(node) in kept | origins | making or node in body.freeze:
                    continue
                if node not in makers or makers[node] & read:
                    kept.add(id(node))
                    read |= loaded_names(node)
                    growing = True
        lost = {
            name
            for own in self.owns
            if id(own.node) not in kept
            for name in makers.get(own.node, ())
        } - named
        stored = {
            name
            for own in self.owns
            if id(own.node) in kept
            for name in stored_names(own.node)
        }
        return None if lost & read or stored & made else kept

    def _lines(self, written: list[Written], kept: set[int]) -> list[str]:
        lines: list[str] = []
        place = {id(own): number for number, own in enumerate(self.owns)}
        for number, each in enumerate(written):
            if each.origin is not None:
                for own in self.owns[: place[id(each.origin)]]:
                    lines += self._carried(own, kept)
                if not each.origin.done:
                    each.origin.done = True
                    lines += each.origin.above
                    same = [w for w in written[number:] if w.origin is each.origin]
                    attach_comments(each.origin, same)
            lines += [*each.above, *each.lines]
        return lines

    def _carried(self, own: Own, kept: set[int]) -> list[str]:
        """Return what stays of a statement that the generator's does not replace."""
        if own.done:
            return []
        own.done = True
        if id(own.node) in kept:
            return [*own.above, *own.lines]
        comments = [f"{own.indent}{comment.text}" for comment in own.comments]
        return [*commented(own.above), *comments]

    def _annotation(self) -> list[Edit]:
        """Say what is returned now, where the user says it narrowly."""
        mine, new = self.method.returns, self.new.method.returns
        if mine is None or new is None:
            return []
        name = ast.unparse(mine).strip("'\"").rpartition(".")[2]
        if name in _ANY or name.startswith("OptimizerLRScheduler"):
            return []
        return [Edit(self.source.span(mine), self.new.source.of(new))]

    def _line_offset(self, line: int) -> int:
        """Return where a line begins; 1 is the first."""
        return sum(map(len, self.source.lines[: line - 1]))


def _unused_lengths(body: list[ast.stmt]) -> set[ast.stmt]:
    """Return the statements that ask for a length of the run that nothing is made of."""
    asking = {s: names for s in body if (names := stored_names(s) & RUN_LENGTHS)}
    guards = {
        s: names
        for s in body
        if isinstance(s, ast.If) and (names := loaded_names(s) & RUN_LENGTHS)
    }
    read = {
        n for s in body if s not in asking and s not in guards for n in loaded_names(s)
    }
    for statement, names in reversed(asking.items()):
        if names & read:
            read |= loaded_names(statement)
    return {s for s, names in (asking | guards).items() if not names & read}


def _keeps_comments(source: SourceText, method: ast.FunctionDef, text: str) -> bool:
    """Tell whether the new file has every comment of the old, and reads no lost name."""
    try:
        after = SourceText(text)
    except SyntaxError:
        return False
    whole = Span(0, len(source.text))
    before = sorted(source.comments_in(whole))
    if before != sorted(after.comments_in(Span(0, len(text)))):
        return False
    for node in ast.walk(after.tree):
        if isinstance(node, ast.FunctionDef) and node.lineno == method.lineno:
            names = assigned_names(node) | assigned_names(method)
            return not unassigned_names(node, names)
    return False
