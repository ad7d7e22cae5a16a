"""Constructor calls with every argument by its name."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass

from lightgen.optim.catalogue import BY_PATH
from lightgen.optim.reading.bindings import Bindings
from lightgen.optim.reading.problems import InexpressibleError, shown
from lightgen.optim.reading.values import Values

_COMPOSED = {
    "torch.optim.lr_scheduler.SequentialLR": ("optimizer", "schedulers", "milestones"),
    "torch.optim.lr_scheduler.ChainedScheduler": ("schedulers", "optimizer"),
}


@dataclass
class Call:
    """A call of one of torch's constructors.

    Attributes:
        path: What is called.
        node: The call, its variables replaced.
        arguments: What each argument means.
        in_file: The call as it stands in the file.
    """

    path: str
    node: ast.Call
    arguments: dict[str, ast.expr]
    in_file: dict[str, ast.expr]


class CallReader:
    """Reads constructor calls.

    Args:
        bindings: The variables.
        values: Reads values.
        path: Says what an imported name means.

    Attributes:
        seen: Every call that was read, once each, in order.
    """

    def __init__(
        self, bindings: Bindings, values: Values, path: Callable[[ast.expr], str]
    ) -> None:
        self.bindings = bindings
        self.values = values
        self.path = path
        self.seen: dict[ast.Call, Call] = {}

    def read(self, node: ast.Call) -> Call:
        """Name the arguments of a call.

        Raises:
            InexpressibleError: It is none of torch's, or has an argument that it cannot.
        """
        if node in self.seen:
            return self.seen[node]
        path = self.path(node.func)
        order = self._order(path)
        if order is None:
            raise InexpressibleError(
                node,
                f"`{shown(node.func)}` is no optimizer or scheduler of torch",
                "one of those that `lightgen optimizers` lists, called here",
            )
        written = self.bindings.written(node)
        assert isinstance(written, ast.Call)
        in_file = self._arguments(written, order, path)
        meant = self._arguments(node, order, path)
        call = Call(path, node, meant, in_file)
        last = meant.pop("last_epoch", None)
        if last is not None and ast.unparse(last) != "-1":
            raise InexpressibleError(
                last,
                "`last_epoch` is set",
                "-1: the trainer restores schedulers itself",
            )
        self.seen[node] = call
        return call

    def _order(self, path: str) -> tuple[str, ...] | None:
        if path in _COMPOSED:
            return (*_COMPOSED[path], "last_epoch")
        entry = BY_PATH.get(path)
        if entry is None:
            return None
        first = "optimizer" if ".lr_scheduler." in path else "params"
        return (first, *(argument.name for argument in entry.arguments), "last_epoch")

    def _arguments(
        self, node: ast.Call, order: tuple[str, ...], path: str
    ) -> dict[str, ast.expr]:
        found: dict[str, ast.expr] = {}
        for name, value in zip(order, node.args, strict=False):
            if isinstance(value, ast.Starred):
                raise InexpressibleError(value, f"`{shown(value)}`", "named arguments")
            found[name] = value
        for keyword in node.keywords:
            if keyword.arg is None:
                raise InexpressibleError(
                    keyword.value,
                    f"`**{shown(keyword.value)}` is decided only in a run",
                    "each argument by its name",
                )
            if keyword.arg not in order:
                raise InexpressibleError(
                    keyword.value,
                    f"`{path.rpartition('.')[2]}` has no argument `{keyword.arg}`",
                    ", ".join(order[:-1]),
                )
            found[keyword.arg] = keyword.value
        return found
