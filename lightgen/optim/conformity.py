"""Whether code calls torch's optimizers and schedulers with arguments that they have."""

from __future__ import annotations

import ast

from lightgen.optim.catalogue import BY_PATH, IMPLIED


def unknown_argument(method: ast.FunctionDef) -> str | None:
    """Return what a call in a method passes in vain, None if everything is taken."""
    for node in ast.walk(method):
        if not isinstance(node, ast.Call):
            continue
        entry = BY_PATH.get(ast.unparse(node.func))
        if entry is None:
            continue
        for keyword in node.keywords:
            name = keyword.arg
            if name is not None and name not in IMPLIED and not entry.has(name):
                return f"`{entry.class_name}` has no argument `{name}`, which you set"
    return None
