"""What names stand for in a user's file, as its imports say."""

from __future__ import annotations

import ast
import copy


class Names:
    """The imported names of a file.

    Args:
        tree: The file.
    """

    def __init__(self, tree: ast.Module) -> None:
        self._paths: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    root = alias.name.partition(".")[0]
                    self._paths[alias.asname or root] = (
                        alias.name if alias.asname else root
                    )
            elif isinstance(node, ast.ImportFrom) and not node.level:
                for alias in node.names:
                    self._paths[alias.asname or alias.name] = (
                        f"{node.module}.{alias.name}"
                    )
        for node in ast.walk(tree):  # whoever assigns a name may mean anything by it
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                self._paths.pop(node.id, None)
            elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                self._paths.pop(node.name, None)

    def path(self, node: ast.expr) -> str:
        """Return the full dotted name that an expression means; "" if it means none."""
        if isinstance(node, ast.Name):
            return self._paths.get(node.id, "")
        if isinstance(node, ast.Attribute):
            inner = self.path(node.value)
            return f"{inner}.{node.attr}" if inner else ""
        return ""

    def shape(self, node: ast.AST) -> str:
        """Return what a node means, without layout; torch's names are written in full."""
        if not any(
            path.startswith("torch.") and path != name
            for name, path in self._paths.items()
        ):
            return ast.dump(node)
        return ast.dump(_InFull(self).visit(copy.deepcopy(node)))


class _InFull(ast.NodeTransformer):
    """Writes what torch calls by its full name."""

    def __init__(self, names: Names) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.AST:
        """Replace an alias."""
        return self._full(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        """Replace a dotted name that begins with an alias."""
        full = self._full(node)
        return self.generic_visit(full) if full is node else full

    def _full(self, node: ast.Name | ast.Attribute) -> ast.AST:
        path = self.names.path(node)
        if not path.startswith("torch.") or not isinstance(node.ctx, ast.Load):
            return node
        return ast.parse(path, mode="eval").body
