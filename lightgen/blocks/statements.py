"""The statements of a method with the lines and the comments that belong to each."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

from lightgen.regen.nodes import is_docstring
from lightgen.regen.text import SourceText


@dataclass(frozen=True)
class Comment:
    """A comment inside a statement, or behind it.

    Attributes:
        line: Where it is in the file, from 1.
        text: It.
        trailing: Whether code stands before it on its line.
    """

    line: int
    text: str
    trailing: bool


@dataclass
class Own:
    """A statement of the user's.

    Attributes:
        node: It.
        above: The lines between it and the statement before.
        lines: Its own lines.
        comments: Comments inside it or behind it.
        indent: Its indentation.
        done: Whether it has been written, or what was to be kept of it.
    """

    node: ast.stmt
    above: list[str]
    lines: list[str]
    comments: list[Comment]
    indent: str
    done: bool = False


@dataclass
class Written:
    """A statement of the generator's.

    Attributes:
        node: It.
        lines: Its lines, indented for the user's file.
        origin: The user's that it stands for.
        above: Comments to be put above it.
    """

    node: ast.stmt
    lines: list[str]
    origin: Own | None = None
    above: list[str] = field(default_factory=list)


def own_statements(source: SourceText, method: ast.FunctionDef) -> list[Own]:
    """Return the statements of a user's method, without its docstring.

    Returns:
        Nothing if two of them share a line, or one that of the signature.
    """
    body = method.body[1:] if is_docstring(method.body[0]) else method.body
    lines = [line.rstrip("\r\n") for line in source.lines]
    owns: list[Own] = []
    before = _header_end(method, lines)
    for node in body:
        assert node.end_lineno is not None
        start = _first_line(node)
        if start <= before:
            return []
        above = lines[before : start - 1]
        owns.append(
            Own(
                node,
                above if owns else commented(above),
                lines[start - 1 : node.end_lineno],
                _comments(source, node),
                source.indent(source.span(node).start),
            )
        )
        before = node.end_lineno
    return owns


def commented(lines: list[str]) -> list[str]:
    """Return the lines from the first comment on."""
    found = [number for number, line in enumerate(lines) if line.strip()]
    return lines[found[0] :] if found else []


def attach_comments(own: Own, written: list[Written]) -> None:
    """Put a statement's comments to the arguments and entries that they are about.

    Args:
        own: The user's statement.
        written: The generator's that stand for it; the first takes what has no place.
    """
    for comment in own.comments:
        heads = _heads_at(own.node, comment)
        place = _find_line(written, heads[0]) if len(heads) == 1 else None
        if place is None:
            written[0].above.append(f"{own.indent}{comment.text}")
            continue
        lines, number = place
        if comment.trailing and "#" not in lines[number]:
            lines[number] += f"  {comment.text}"
        else:
            code = lines[number]
            lead = code[: len(code) - len(code.lstrip())]
            lines.insert(number, f"{lead}{comment.text}")


def stored_names(node: ast.stmt) -> set[str]:
    """Return the variables and attributes that a statement assigns."""
    return _names(node, ast.Store)


def loaded_names(node: ast.stmt) -> set[str]:
    """Return the variables and attributes that a statement reads."""
    return _names(node, ast.Load)


def _names(node: ast.stmt, context: type[ast.expr_context]) -> set[str]:
    return {
        ast.unparse(inner)
        for inner in ast.walk(node)
        if isinstance(inner, (ast.Name, ast.Attribute))
        and isinstance(inner.ctx, context)
    }


def _comments(source: SourceText, node: ast.stmt) -> list[Comment]:
    span = source.span(node)
    end = source.line_end(max(span.end - 1, span.start))
    found = []
    for comment in source.comments:
        if span.start <= comment.start < end:
            line = node.lineno + source.text.count("\n", span.start, comment.start)
            text = source.text[comment.start : comment.end].rstrip("\r")
            found.append(Comment(line, text, not source.starts_line(comment.start)))
    return found


def _header_end(method: ast.FunctionDef, lines: list[str]) -> int:
    """Return the last line of the signature and the docstring."""
    first = method.body[0]
    if is_docstring(first):
        assert first.end_lineno is not None
        return first.end_lineno
    line = _first_line(first) - 1
    while line > method.lineno and (
        not lines[line - 1].strip() or lines[line - 1].lstrip().startswith("#")
    ):
        line -= 1
    return max(line, method.lineno)


def _first_line(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(each.lineno for each in decorators)])


def _heads_at(node: ast.stmt, comment: Comment) -> list[str]:
    """Return how the arguments and entries begin that a comment is about."""
    heads: list[tuple[int, str]] = []
    for inner in ast.walk(node):
        if isinstance(inner, ast.keyword) and inner.arg:
            value = inner.value
            number = value.end_lineno if comment.trailing else value.lineno
            heads.append((number or 0, f"{inner.arg}="))
        elif isinstance(inner, ast.Dict):
            for key, value in zip(inner.keys, inner.values, strict=True):
                if isinstance(key, ast.Constant):
                    number = value.end_lineno if comment.trailing else key.lineno
                    heads.append((number or 0, f'"{key.value!s}":'))
    if comment.trailing:
        return [head for number, head in heads if number == comment.line]
    later = [item for item in heads if item[0] > comment.line]
    nearest = min((number for number, _ in later), default=0)
    return [head for number, head in later if number == nearest]


def _find_line(written: list[Written], head: str) -> tuple[list[str], int] | None:
    """Return the one line that begins so, and the lines that it is among."""
    found = [
        (each.lines, number)
        for each in written
        for number, line in enumerate(each.lines)
        if line.lstrip().startswith(head)
    ]
    return found[0] if len(found) == 1 else None
