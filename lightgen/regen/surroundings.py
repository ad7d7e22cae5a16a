"""The rest of a file, around its blocks."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Sequence

from lightgen.regen.block import Generated, Place, method_span
from lightgen.regen.edits import Edit, apply_edits
from lightgen.regen.imports import import_edits
from lightgen.regen.locate import locate, parse_file
from lightgen.regen.text import SourceText


def with_block_replaced(
    text: str, place: Place, new: Generated, dropped: Sequence[str]
) -> str:
    """Put a block in the place of what is there, whatever that is.

    Args:
        text: The file, indented by four spaces.
        place: Where the method is.
        new: The block.
        dropped: Imports that the block before needed.

    Returns:
        The file; as it was, if it does not have the method.

    Raises:
        BlockNotFoundError: The class is not there.
    """
    source = parse_file(text, place.path)
    method = locate(source, place.path, place.class_name, place.method).method
    if method is None:
        return text
    edit = Edit(method_span(source, method), new.text.rstrip("\n"))
    replaced = SourceText(apply_edits(text, [edit]))
    edits = import_edits(replaced, list(new.imports), list(dropped))
    return apply_edits(replaced.text, edits)


def same_around(one: str, other: str, places: Sequence[Place]) -> bool:
    """Tell whether two files are the same, character by character, around blocks.

    Args:
        one: A file.
        other: The other.
        places: The blocks, at least one.

    Raises:
        BlockNotFoundError: One of them is no Python, or a block is nowhere.
    """
    return _around(one, places) == _around(other, places)


def same_meaning_around(one: str, other: str, places: Sequence[Place]) -> bool:
    """Tell whether two files differ by no more than a formatter may change.

    Raises:
        BlockNotFoundError: One of them is no Python, or a block is nowhere.
    """
    return _meaning_around(one, places) == _meaning_around(other, places)


def _around(text: str, places: Sequence[Place]) -> str:
    source = parse_file(text, places[0].path)
    methods = _methods(source, places)
    return apply_edits(
        text, [Edit(method_span(source, method), "") for method in methods]
    )


def _meaning_around(text: str, places: Sequence[Place]) -> tuple[str, list[str]]:
    source = parse_file(text, places[0].path if places else "the file")
    methods = _methods(source, places)
    spans = [method_span(source, method) for method in methods]
    comments = [
        source.text[found.start : found.end].rstrip()
        for found in source.comments
        if not any(span.start <= found.start < span.end for span in spans)
    ]
    return ast.dump(_Plain(methods).visit(source.tree)), comments


class _Plain(ast.NodeTransformer):
    """Takes methods out, and outer white space out of docstrings."""

    def __init__(self, methods: Sequence[ast.FunctionDef]) -> None:
        self._methods = methods

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST | None:
        return None if node in self._methods else self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        value = node.value
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            lines = inspect.cleandoc(value.value).splitlines()
            value.value = "\n".join(line.rstrip() for line in lines)
        return node


def _methods(source: SourceText, places: Sequence[Place]) -> list[ast.FunctionDef]:
    found = [
        locate(source, place.path, place.class_name, place.method).method
        for place in places
    ]
    return [method for method in found if method is not None]
