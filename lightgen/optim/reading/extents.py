"""From expressions to lengths of training: sums of durations, or what is left of a run."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any, Literal

from lightgen.optim.entries import Interval
from lightgen.optim.reading.problems import InexpressibleError, shown
from lightgen.optim.reading.values import Values
from lightgen.optim.values import Duration, Hparam

Unit = Literal["%", "st", "ep"]
_RUN: dict[Interval, str] = {
    "step": "self.trainer.estimated_stepping_batches",
    "epoch": "self.trainer.max_epochs",
}
_PLAIN: dict[Interval, Unit] = {"step": "st", "epoch": "ep"}


@dataclass(frozen=True)
class Extent:
    """A sum of durations, beside the whole run where `whole` is set.

    Attributes:
        amounts: Amount by unit, none of them 0; negative ones are taken away.
        whole: Whether the length of the whole run is part of the sum.
    """

    amounts: tuple[tuple[Unit, float], ...] = ()
    whole: bool = False

    def plus(self, other: Extent, sign: int = 1) -> Extent:
        """Return the sum; the whole run may be in one of the two only."""
        sums = dict(self.amounts)
        for unit, amount in other.amounts:
            sums[unit] = round(sums.get(unit, 0) + sign * amount, 10)
        left = tuple(sorted((u, a) for u, a in sums.items() if a))
        return Extent(left, self.whole or other.whole)

    @property
    def duration(self) -> Duration | None:
        """The same as one duration, None if it is none."""
        if self.whole or len(self.amounts) != 1 or self.amounts[0][1] <= 0:
            return None
        unit, amount = self.amounts[0]
        return Duration(int(amount) if float(amount).is_integer() else amount, unit)


class Extents:
    """Reads lengths.

    Args:
        values: Reads what they are made of.
    """

    def __init__(self, values: Values) -> None:
        self.values = values

    def read(self, node: ast.expr, interval: Interval) -> Extent | Hparam:
        """Read a length in steps of a scheduler with this interval.

        Raises:
            InexpressibleError: No schedule can say it.
        """
        if ast.unparse(node) == _RUN[interval]:
            return Extent(whole=True)
        if isinstance(node, ast.Call):
            return self._call(node, interval)
        if isinstance(node, ast.BinOp):
            found = self._operation(node, interval)
            if found is not None:
                return found
        value = self._known(node)
        if isinstance(value, Hparam):
            return value
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return Extent(((_PLAIN[interval], value),))
        raise _no_length(node, interval)

    def sum(self, node: ast.expr, interval: Interval) -> Extent:
        """Read a length that is no hyperparameter."""
        found = self.read(node, interval)
        if isinstance(found, Hparam):
            raise InexpressibleError(
                node,
                f"`{shown(node)}` is a length that the configuration decides",
                "a number, or a share of the run such as "
                f"round(0.1 * {_RUN[interval]})",
            )
        return found

    def _known(self, node: ast.expr) -> Any:
        text = ast.unparse(node)
        if text in _RUN.values():
            kind = "optimizer steps" if text == _RUN["step"] else "epochs"
            raise InexpressibleError(
                node,
                f"`{text}` counts {kind}, and the scheduler steps in others",
                'a length and an "interval" of the same kind',
            )
        return self.values.value(node)

    def _call(self, node: ast.Call, interval: Interval) -> Extent | Hparam:
        function = ast.unparse(node.func)
        if function == "max" and len(node.args) == 2:  # at least one step
            first, second = node.args
            if isinstance(first, ast.Constant) and first.value == 1:
                return self.read(second, interval)
            if isinstance(second, ast.Constant) and second.value == 1:
                return self.read(first, interval)
        if function in ("round", "int") and len(node.args) == 1:
            share = self._share(node.args[0], interval)
            if share is not None:
                return Extent((("%", share),))
            return self.read(node.args[0], interval)
        raise _no_length(node, interval)

    def _operation(self, node: ast.BinOp, interval: Interval) -> Extent | None:
        if isinstance(node.op, (ast.Add, ast.Sub)):
            sign = 1 if isinstance(node.op, ast.Add) else -1
            left = self.sum(node.left, interval)
            return left.plus(self.sum(node.right, interval), sign)
        if isinstance(node.op, ast.FloorDiv):
            if _is_epoch(node) and interval == "step":
                return Extent((("ep", 1),))
            share = self._share(ast.BinOp(node.left, ast.Div(), node.right), interval)
            return None if share is None else Extent((("%", share),))
        if isinstance(node.op, ast.Mult):
            for epoch, count in ((node.right, node.left), (node.left, node.right)):
                if interval == "step" and _is_epoch(epoch):
                    number = self.values.number(count)
                    if isinstance(number, int) and number > 0:
                        return Extent((("ep", number),))
        return None

    def _share(self, node: ast.expr, interval: Interval) -> float | None:
        """Return the percentage that an expression takes of the whole run."""
        if not isinstance(node, ast.BinOp):
            return None
        left, right = node.left, node.right
        if isinstance(node.op, ast.Div) and ast.unparse(left) == _RUN[interval]:
            factor = 1 / self.values.number(right)
        elif isinstance(node.op, ast.Mult) and ast.unparse(right) == _RUN[interval]:
            factor = self.values.number(left)
        elif isinstance(node.op, ast.Mult) and ast.unparse(left) == _RUN[interval]:
            factor = self.values.number(right)
        else:
            return None
        percent = round(factor * 100, 10)
        return percent if 0 < percent <= 100 else None


def _is_epoch(node: ast.expr) -> bool:
    """Tell whether an expression is the number of optimizer steps in an epoch."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "max":
        return any(_is_epoch(argument) for argument in node.args)
    return (
        isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.FloorDiv)
        and ast.unparse(node.left) == _RUN["step"]
        and ast.unparse(node.right) == _RUN["epoch"]
    )


def _no_length(node: ast.expr, interval: Interval) -> InexpressibleError:
    return InexpressibleError(
        node,
        f"`{shown(node)}` is no length that a schedule can say",
        f"a whole number above 0, {_RUN[interval]}, or a share of it: "
        f"round(0.1 * {_RUN[interval]})",
    )
