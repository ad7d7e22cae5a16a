"""From expressions to the values of a specification."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

from lightgen.errors import OptimizerOptionError
from lightgen.optim.arguments import Argument
from lightgen.optim.reading.problems import InexpressibleError, Remark, shown
from lightgen.optim.text import Piece
from lightgen.optim.values import Function, Hparam, Value, read_value, write_value

_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_LITERAL = "a number, or self.hparams.NAME"


class Values:
    """Reads values with what the file and the class say of their names.

    Args:
        module: The file.
        class_: The class.

    Attributes:
        notes: What was read as its present value.
    """

    def __init__(self, module: ast.Module, class_: ast.ClassDef) -> None:
        self.constants = _constants(module)
        self.attributes = _Attributes(class_)
        self.notes: list[Remark] = []

    def read(self, argument: Argument, node: ast.expr, written: ast.expr) -> Value:
        """Read one argument.

        Args:
            argument: What it is for.
            node: What it means.
            written: What stands in the file.

        Raises:
            InexpressibleError: No specification can say it.
        """
        if argument.kind == "function":
            return self._function(argument, node, written)
        meant = self.value(node)
        if isinstance(meant, Hparam):
            return meant
        try:
            return read_value(argument, Piece.of(_text(meant), argument.name))
        except (OptimizerOptionError, TypeError) as error:
            raise InexpressibleError(
                written,
                f"`{argument.name}` is `{shown(written)}`",
                f"{argument.accepted}, or self.hparams.NAME",
            ) from error

    def value(self, node: ast.expr) -> Any:
        """Return a Python value, or the hyperparameter that it comes from."""
        if isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)):
            return self._named(node)
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, (ast.Tuple, ast.List)):
            return tuple(self.value(part) for part in node.elts)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
            number = self.number(node.operand)
            return -number if isinstance(node.op, ast.USub) else number
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            left, right = self.number(node.left), self.number(node.right)
            try:
                return _OPERATORS[type(node.op)](left, right)
            except (ArithmeticError, TypeError):
                pass
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("float", "int")
            and len(node.args) == 1
        ):
            return {"float": float, "int": int}[node.func.id](self.number(node.args[0]))
        raise InexpressibleError(
            node, f"`{shown(node)}` is decided only in a run", _LITERAL
        )

    def number(self, node: ast.expr) -> int | float:
        """Return a number that is known now."""
        value = self.known(node)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InexpressibleError(node, f"`{shown(node)}` is no number", _LITERAL)
        return value

    def known(self, node: ast.expr) -> Any:
        """Return a value that is known now."""
        value = self.value(node)
        if isinstance(value, Hparam):
            raise InexpressibleError(
                node,
                f"`{shown(node)}` is only a part of the value",
                "self.hparams.NAME alone, with the whole value in the configuration",
            )
        return value

    def _named(self, node: ast.Name | ast.Attribute | ast.Subscript) -> Any:
        text = ast.unparse(node)
        if text.startswith("self.hparams.") and text.count(".") == 2:
            return Hparam(text.rpartition(".")[2])
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == (
            "self.hparams"
        ):
            key = node.slice
            if isinstance(key, ast.Constant) and str(key.value).isidentifier():
                return Hparam(str(key.value))
        if text in self.constants:
            value = self.value(self.constants[text])
            self.notes.append(Remark(node.lineno, f"`{text}` is {_text(value)} now"))
            return value
        if isinstance(node, ast.Attribute) and text == f"self.{node.attr}":
            return self._attribute(node)
        raise InexpressibleError(
            node, f"`{shown(node)}` is nothing that is known here", _LITERAL
        )

    def _attribute(self, node: ast.Attribute) -> Any:
        assigned = self.attributes.assigned(node.attr)
        if isinstance(assigned, ast.Name) and self.attributes.is_argument(assigned.id):
            if self.attributes.saves(assigned.id):
                return Hparam(assigned.id)
            raise InexpressibleError(
                node,
                f"`self.{node.attr}` is no hyperparameter",
                "self.save_hyperparameters() in __init__, which makes it "
                f"self.hparams.{assigned.id}",
            )
        if isinstance(assigned, ast.Constant):
            self.notes.append(
                Remark(node.lineno, f"`self.{node.attr}` is {assigned.value!r} now")
            )
            return assigned.value
        if assigned is not None and ast.unparse(assigned).startswith("self.hparams"):
            return self.value(assigned)
        raise InexpressibleError(
            node,
            f"`self.{node.attr}` is not simply an argument of __init__",
            _LITERAL,
        )

    def _function(
        self, argument: Argument, node: ast.expr, written: ast.expr
    ) -> Function | None:
        if isinstance(node, ast.Constant) and node.value is None and argument.none:
            return None
        name = ast.unparse(written)
        if all(part.isidentifier() for part in name.split(".")):
            return Function(name)
        kind = "a lambda" if isinstance(node, ast.Lambda) else f"`{shown(node)}`"
        raise InexpressibleError(
            written,
            f"`{argument.name}` is {kind}, which has no name",
            "a function with a name: def it in the file, or assign it to a variable",
        )


class _Attributes:
    """What `__init__` puts into attributes."""

    def __init__(self, class_: ast.ClassDef) -> None:
        self._init = next(
            (
                node
                for node in class_.body
                if isinstance(node, ast.FunctionDef) and node.name == "__init__"
            ),
            None,
        )
        self._stored = [
            ast.unparse(node)
            for node in ast.walk(class_)
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        ]

    def assigned(self, name: str) -> ast.expr | None:
        """Return what an attribute is set to in `__init__`, if nobody sets it elsewhere."""
        if self._init is None or self._stored.count(f"self.{name}") != 1:
            return None
        for statement in self._init.body:
            targets: list[ast.expr] = []
            if isinstance(statement, ast.Assign):
                targets = statement.targets
            elif isinstance(statement, ast.AnnAssign):
                targets = [statement.target]
            if any(ast.unparse(target) == f"self.{name}" for target in targets):
                return statement.value  # type: ignore[attr-defined, no-any-return]
        return None

    def is_argument(self, name: str) -> bool:
        """Tell whether a name in `__init__` is an argument that is never changed."""
        if self._init is None:
            return False
        arguments = self._init.args
        names = [a.arg for a in (*arguments.args, *arguments.kwonlyargs)]
        changed = any(
            isinstance(node, ast.Name)
            and node.id == name
            and isinstance(node.ctx, ast.Store)
            for node in ast.walk(self._init)
        )
        return name in names and not changed

    def saves(self, name: str) -> bool:
        """Tell whether `save_hyperparameters` takes an argument."""
        for node in ast.walk(self._init) if self._init else ():
            if not isinstance(node, ast.Call):
                continue
            if ast.unparse(node.func) != "self.save_hyperparameters":
                continue
            ignored = [k.value for k in node.keywords if k.arg == "ignore"]
            if any(repr(name) in ast.unparse(value) for value in ignored):
                continue
            given = [a.value for a in node.args if isinstance(a, ast.Constant)]
            if not node.args or name in given:
                return True
        return False


def _constants(module: ast.Module) -> dict[str, ast.expr]:
    """Return what the file assigns once, at its top, to a name."""
    stored = [
        node.id
        for node in ast.walk(module)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    ]
    found: dict[str, ast.expr] = {}
    for statement in module.body:
        target: ast.expr | None = None
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target = statement.targets[0]
        elif isinstance(statement, ast.AnnAssign):
            target = statement.target
        value = getattr(statement, "value", None)
        once = isinstance(target, ast.Name) and stored.count(target.id) == 1
        if isinstance(target, ast.Name) and once and isinstance(value, ast.expr):
            found[target.id] = value
    return found


def _text(value: Any) -> str:
    if isinstance(value, (bool, int, float, str, tuple)) or value is None:
        return write_value(value)
    raise TypeError(value)
