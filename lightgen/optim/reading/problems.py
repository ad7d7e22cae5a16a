"""What a specification cannot say of a user's code, and what it says differently."""

from __future__ import annotations

import ast
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Remark:
    """Something about one line of a user's method.

    Attributes:
        line: The line in the file, from 1.
        text: What is the matter.
        todo: What to write instead; "" for a mere note.
    """

    line: int
    text: str
    todo: str = ""


class InexpressibleError(Exception):
    """An expression that a specification cannot say; never leaves the reader."""

    def __init__(self, node: ast.AST, text: str, todo: str) -> None:
        super().__init__(text)
        self.remark = Remark(getattr(node, "lineno", 0), text, todo)


def is_none(node: ast.expr) -> bool:
    """Tell whether an expression is None, which stands for nothing said."""
    return isinstance(node, ast.Constant) and node.value is None


def shown(node: ast.AST, limit: int = 60) -> str:
    """Return code on one line, cut short."""
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
