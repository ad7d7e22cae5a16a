"""A block as slots: each part of it that can be changed on its own, by key.

Statements are keyed by what they assign, arguments by keyword, entries by their key. Two
versions of a block are compared slot by slot, whatever their order and layout.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

from lightgen.regen.text import SourceText, Span

Key = tuple[str, ...]


@dataclass
class Slot:
    """One part of a block.

    Attributes:
        key: What it is called among its neighbours.
        span: Its characters, with what belongs to it: `name=`, `"key": `.
        value: The characters of its value.
        shape: What it means, without layout and comments: equal if and only if the
            code is.
        kind: "call", "mapping", "list", "statement" or "leaf".
        slots: What it is made of.
        depth: How many blocks deep a statement is nested in the method.
    """

    key: Key
    span: Span
    value: Span
    shape: str
    kind: str = "leaf"
    slots: list[Slot] = field(default_factory=list)
    depth: int = 0

    def find(self, key: Key) -> Slot | None:
        """Return the slot of that key."""
        return next((slot for slot in self.slots if slot.key == key), None)

    def walk(self) -> Iterator[Slot]:
        """Yield this slot and all below it."""
        yield self
        for slot in self.slots:
            yield from slot.walk()

    @property
    def name(self) -> str:
        """What a person would call it."""
        return self.key[-1]


def method_slots(source: SourceText, method: ast.FunctionDef) -> list[Slot]:
    """Return the statements of a method as slots, nested ones included, in order."""
    counts: dict[Key, int] = {}
    found: list[Slot] = []
    _collect(source, method.body, 0, counts, found)
    return found


def _collect(
    source: SourceText,
    body: list[ast.stmt],
    depth: int,
    counts: dict[Key, int],
    found: list[Slot],
) -> None:
    for place, statement in enumerate(body):
        if place == 0 and depth == 0 and is_docstring(statement):
            continue
        key = _numbered(statement_key(statement, depth), counts)
        found.append(_statement(source, statement, key, depth))
        for inner in _inner_bodies(statement):
            _collect(source, inner, depth + 1, counts, found)


def is_docstring(statement: ast.stmt) -> bool:
    """Tell whether a statement is only a text."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def statement_key(statement: ast.stmt, depth: int) -> Key:
    """Return what a statement is known by."""
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        return ("assign", ast.unparse(statement.targets[0]).strip("()"))
    if isinstance(statement, ast.AnnAssign):
        return ("assign", ast.unparse(statement.target))
    if isinstance(statement, ast.Return) and depth == 0:
        return ("return", "return")
    if isinstance(statement, ast.If):
        return ("if", f"if {ast.unparse(statement.test)}")
    return ("statement", ast.unparse(statement).partition("\n")[0])


def _inner_bodies(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    # What a nested function does is the function's business.
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return
    for name in ("body", "orelse", "finalbody"):
        inner = getattr(statement, name, None)
        if inner:
            yield inner
    for handler in getattr(statement, "handlers", ()):
        yield handler.body


def _statement(source: SourceText, statement: ast.stmt, key: Key, depth: int) -> Slot:
    span = source.span(statement)
    shape = source.shape(statement)
    value = getattr(statement, "value", None)
    if key[0] in ("assign", "return") and isinstance(value, ast.expr):
        inner = _expression(source, value, ("value", key[1]), source.span(value))
        return Slot(key, span, span, shape, "statement", [inner], depth)
    return Slot(key, span, span, shape, depth=depth)


def _expression(source: SourceText, node: ast.expr, key: Key, span: Span) -> Slot:
    value = source.span(node)
    slot = Slot(key, span, value, source.shape(node))
    counts: dict[Key, int] = {}
    if isinstance(node, ast.Call):
        slot.kind = "call"
        slot.slots = [_leaf(source, node.func, ("function", "function"))]
        for number, argument in enumerate(node.args):
            name = ("argument", f"argument {number + 1}")
            slot.slots.append(
                _expression(source, argument, name, source.span(argument))
            )
        for keyword in node.keywords:
            place = _numbered(("keyword", keyword.arg or "**"), counts)
            slot.slots.append(
                _expression(source, keyword.value, place, source.span(keyword))
            )
    elif isinstance(node, ast.Dict) and all(
        isinstance(entry, ast.Constant) for entry in node.keys
    ):
        slot.kind = "mapping"
        for entry, inner in zip(node.keys, node.values, strict=True):
            assert isinstance(entry, ast.Constant)
            place = _numbered(("entry", str(entry.value)), counts)
            whole = Span(source.span(entry).start, source.span(inner).end)
            slot.slots.append(_expression(source, inner, place, whole))
    elif isinstance(node, (ast.List, ast.Tuple)) and _holds_structures(node):
        slot.kind = "list"
        for number, inner in enumerate(node.elts):
            place = _numbered(("item", _head(source, inner, number)), counts)
            slot.slots.append(_expression(source, inner, place, source.span(inner)))
    return slot


def _leaf(source: SourceText, node: ast.expr, key: Key) -> Slot:
    span = source.span(node)
    return Slot(key, span, span, source.shape(node))


def _holds_structures(node: ast.List | ast.Tuple) -> bool:
    return bool(node.elts) and all(
        isinstance(inner, (ast.Call, ast.Dict, ast.List)) for inner in node.elts
    )


def _head(source: SourceText, node: ast.expr, number: int) -> str:
    """Return what tells an element from its neighbours: what it calls, or its place."""
    if isinstance(node, ast.Call):
        return source.names.path(node.func) or ast.unparse(node.func)
    return f"{number + 1}."


def _numbered(key: Key, counts: dict[Key, int]) -> Key:
    """Make a key that came before unique."""
    counts[key] = counts.get(key, 0) + 1
    return key if counts[key] == 1 else (*key[:-1], f"{key[-1]} ({counts[key]})")
