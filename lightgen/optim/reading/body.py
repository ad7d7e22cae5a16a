"""The statements of a method: which make its result, and which are the user's own."""

from __future__ import annotations

import ast
from collections.abc import Callable

from lightgen.optim.reading.bindings import Bindings
from lightgen.optim.reading.problems import InexpressibleError, Remark, is_none, shown
from lightgen.optim.selector import is_path

_CHANGING = {
    "add_param_group",
    "load_state_dict",
    "step",
    "append",
    "extend",
    "insert",
    "update",
    "setdefault",
    "pop",
    "remove",
    "clear",
}
_FREEZE = "lightgen_runtime.optim.freeze"
SPLIT = "lightgen_runtime.optim.split_parameters"


class Body:
    """Follows a method's statements down to what it returns.

    Args:
        method: The method.
        path: Says what an imported name means.

    Attributes:
        bindings: What each variable means at the end.
        makers: The statements that assign each variable, at the top of the method.
        freeze: What it freezes, and the statements that do.
        result: What it returns, the statement; None if nothing.
    """

    def __init__(
        self, method: ast.FunctionDef, path: Callable[[ast.expr], str]
    ) -> None:
        self.method = method
        self.path = path
        self.bindings = Bindings()
        self.makers: dict[str, list[ast.stmt]] = {}
        self.freeze: dict[ast.stmt, str] = {}
        self.result: ast.Return | None = None
        self.doubts: list[tuple[str, Remark]] = []
        for statement in method.body:
            if isinstance(statement, ast.Return):
                self.result = statement
                break
            self._statement(statement)

    @property
    def relevant(self) -> set[str]:
        """The variables that the result is made of."""
        found: set[str] = set()
        waiting = self._names(self.result) if self.result is not None else set()
        while waiting:
            name = waiting.pop()
            if name in found:
                continue
            found.add(name)
            for statement in self.makers.get(name, ()):
                waiting |= self._names(statement)
        return found

    def remarks(self) -> list[Remark]:
        """Return what makes the result uncertain."""
        relevant = self.relevant
        return [remark for name, remark in self.doubts if not name or name in relevant]

    def _names(self, node: ast.AST) -> set[str]:
        names = {
            ast.unparse(inner)
            for inner in ast.walk(node)
            if isinstance(inner, (ast.Name, ast.Attribute))
        }
        known = {name for name, _ in self.doubts}
        return {name for name in names if name in self.makers or name in known}

    def _statement(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            self._assign(statement, statement.targets[0], statement.value)
        elif isinstance(statement, ast.AnnAssign):
            if statement.value is not None:
                self._assign(statement, statement.target, statement.value)
        elif isinstance(statement, ast.Expr) and self._freezes(statement):
            pass
        else:
            self._own(statement)

    def _assign(self, statement: ast.stmt, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Tuple):
            parts = self._unpacked(target, value)
            for name, part in parts:
                self._bind(statement, name, part)
            if not parts:
                self._own(statement)
        elif isinstance(target, ast.Name) or _is_own_attribute(target):
            self._bind(statement, ast.unparse(target), value)
        elif not self._adds_entry(statement, target, value):
            self._own(statement)

    def _bind(self, statement: ast.stmt, name: str, value: ast.expr) -> None:
        self.makers.setdefault(name, []).append(statement)
        self.bindings.bind(name, value)
        if isinstance(value, ast.Lambda):  # known by its name from here on
            del self.bindings.values[name]
            del self.makers[name]

    def _unpacked(
        self, target: ast.Tuple, value: ast.expr
    ) -> list[tuple[str, ast.expr]]:
        names = [ast.unparse(part) for part in target.elts]
        if isinstance(value, ast.Tuple) and len(value.elts) == len(names):
            return list(zip(names, value.elts, strict=True))
        if isinstance(value, ast.Call) and self.path(value.func) == SPLIT:
            return [
                (
                    name,
                    ast.copy_location(ast.Subscript(value, ast.Constant(place)), value),
                )
                for place, name in enumerate(names)
            ]
        return []

    def _adds_entry(
        self, statement: ast.stmt, target: ast.expr, value: ast.expr
    ) -> bool:
        """Follow `config["key"] = value`."""
        if not isinstance(target, ast.Subscript):
            return False
        name = ast.unparse(target.value)
        former = self.bindings.values.get(name)
        if not isinstance(former, ast.Dict):
            return False
        if not isinstance(target.slice, ast.Constant):
            return False
        pairs = [
            (key, old)
            for key, old in zip(former.keys, former.values, strict=True)
            if not (isinstance(key, ast.Constant) and key.value == target.slice.value)
        ]
        pairs.append((target.slice, self.bindings.resolved(value)))
        fresh = ast.Dict([key for key, _ in pairs], [old for _, old in pairs])
        self.makers[name].append(statement)
        self.bindings.bind(name, ast.copy_location(fresh, former))
        return True

    def _freezes(self, statement: ast.Expr) -> bool:
        call = statement.value
        if not isinstance(call, ast.Call) or self.path(call.func) != _FREEZE:
            return False
        selector = call.args[-1]
        if not isinstance(selector, ast.Constant):
            return False
        self.freeze[statement] = str(selector.value)
        return True

    def _own(self, statement: ast.stmt) -> None:
        """Note what a statement of the user's own makes uncertain."""
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef, ast.Import)):
            return
        line = statement.lineno
        inside = not isinstance(statement, (ast.Assign, ast.AugAssign, ast.Expr))
        for node in ast.walk(statement):
            if isinstance(node, ast.Return):
                text = "the method returns here under a condition"
                self._doubt("", Remark(node.lineno, text, "one return, at the end"))
            elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(
                node.ctx, ast.Store
            ):
                self._stored(node, line, inside)
            elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
                self._changed(node, node.lineno)
            elif (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in _CHANGING
            ):
                self._changed(node.func.value, node.lineno)
        if isinstance(statement, ast.For) and "param_groups" in ast.unparse(
            statement.iter
        ):
            self._changed(statement.iter, line)

    def _stored(self, node: ast.Name | ast.Attribute, line: int, inside: bool) -> None:
        if isinstance(node, ast.Attribute) and not _is_own_attribute(node):
            self._changed(node.value, line)
            return
        name = ast.unparse(node)
        how = "under a condition or in a loop" if inside else "by more than one value"
        text = f"`{name}` is decided {how}"
        self._doubt(name, Remark(line, text, "one assignment of one value"))

    def _changed(self, node: ast.expr, line: int) -> None:
        while isinstance(node, (ast.Subscript, ast.Attribute)):
            if ast.unparse(node) in self.makers:
                break
            node = node.value
        name = ast.unparse(node)
        if name in self.makers:
            text = f"`{name}` is changed after it was made"
            self._doubt(name, Remark(line, text, "give it its values at once"))

    def _doubt(self, name: str, remark: Remark) -> None:
        self.doubts.append((name, remark))


def _is_own_attribute(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
        and is_path(node.attr)
    )


def returned(body: Body) -> ast.expr:
    """Return what a method returns.

    Raises:
        InexpressibleError: Nothing, or not for sure.
    """
    statement = body.result
    if statement is None or statement.value is None or is_none(statement.value):
        raise InexpressibleError(
            statement or body.method,
            f"`{body.method.name}` returns no optimizer",
            "a method that makes one and returns it",
        )
    found = body.bindings.resolved(statement.value)
    if isinstance(found, (ast.Name, ast.Attribute)):
        raise InexpressibleError(
            statement,
            f"`{shown(found)}` is not made in this method",
            "a call of one of torch's optimizers, in the method itself",
        )
    return found
