"""A method's local variables, each replaced by what it was assigned."""

from __future__ import annotations

import ast
import copy
from typing import cast

_SCOPES = (
    ast.Lambda,
    ast.ListComp,
    ast.SetComp,
    ast.DictComp,
    ast.GeneratorExp,
)


class Bindings:
    """What each variable means at the point that reading has reached.

    Expressions are shared, not copied: two mentions of one optimizer give one node.

    Attributes:
        values: Meaning by variable; `self.x` counts as one.
        name_of: The variable that an expression was assigned to, whole.
        original: What stands in the file, by what it means.
    """

    def __init__(self) -> None:
        self.values: dict[str, ast.expr] = {}
        self.name_of: dict[ast.AST, str] = {}
        self.original: dict[ast.AST, ast.AST] = {}

    def bind(self, name: str, value: ast.expr) -> None:
        """Let a variable mean what an expression means now."""
        meaning = self.resolved(value)
        self.values[name] = meaning
        self.name_of.setdefault(meaning, name)

    def written(self, node: ast.expr) -> ast.expr:
        """Return what stands in the file for an expression."""
        return cast("ast.expr", self.original.get(node, node))

    def resolved(self, node: ast.expr) -> ast.expr:
        """Return what an expression means, its variables replaced."""
        return cast("ast.expr", self._resolved(node))

    def _resolved(self, node: ast.AST) -> ast.AST:
        if isinstance(node, (ast.Name, ast.Attribute)):
            found = self.values.get(ast.unparse(node))
            if found is not None:
                return found
        if isinstance(node, _SCOPES):
            return node
        changed: dict[str, object] = {}
        for name, field in ast.iter_fields(node):
            if isinstance(field, ast.AST):
                new: object = self._resolved(field)
                if new is not field:
                    changed[name] = new
            elif isinstance(field, list):
                items = [
                    self._resolved(item) if isinstance(item, ast.AST) else item
                    for item in field
                ]
                if any(a is not b for a, b in zip(items, field, strict=True)):
                    changed[name] = items
        if not changed:
            return node
        fresh = copy.copy(node)
        for name, value in changed.items():
            setattr(fresh, name, value)
        self.original[fresh] = self.original.get(node, node)
        return fresh
