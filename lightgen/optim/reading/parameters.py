"""From what an optimizer is given to a selector and to groups."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from lightgen.optim.entries import Optimizer
from lightgen.optim.reading.problems import InexpressibleError, shown
from lightgen.optim.reading.values import Values
from lightgen.optim.spec import GroupSpec
from lightgen.optim.values import Hparam, Value

_RUNTIME = "lightgen_runtime.optim"
_ACCEPTED = (
    "self.parameters(), self.NAME.parameters(), groups of those with lr and "
    'weight_decay=0, or parameter_groups(self, no_decay=("bias", "norm")) from '
    f"{_RUNTIME}"
)


@dataclass
class Parameters:
    """What an optimizer is given.

    Attributes:
        select: Selector; "" for all.
        groups: How they are grouped.
        values: Arguments of the optimizer that the groups set.
    """

    select: str = ""
    groups: GroupSpec = field(default_factory=GroupSpec)
    values: dict[str, Value] = field(default_factory=dict)


class ParameterReader:
    """Reads the first argument of optimizers.

    Args:
        values: Reads numbers.
        path: Says what an imported name means.
    """

    def __init__(self, values: Values, path: Callable[[ast.expr], str]) -> None:
        self.values = values
        self.path = path

    def read(
        self, node: ast.expr, entry: Optimizer, arguments: dict[str, Value]
    ) -> Parameters:
        """Read it.

        Args:
            node: What it means.
            entry: The optimizer.
            arguments: The optimizer's other arguments.

        Raises:
            InexpressibleError: No specification can say it.
        """
        if isinstance(node, ast.Call) and self.path(node.func) == (
            f"{_RUNTIME}.parameter_groups"
        ):
            return self._grouped(node, entry, arguments)
        if isinstance(node, (ast.List, ast.Tuple)) and node.elts:
            return self._dictionaries(node, entry, arguments)
        return Parameters(self._selector(node))

    # ---- selectors ----

    def _selector(self, node: ast.expr) -> str:
        return ",".join(self._terms(node))

    def _terms(self, node: ast.expr) -> list[str]:
        """Return the paths of what holds the parameters; none for the module itself."""
        inner = _filtered(node)
        if inner is not None:
            return self._terms(inner)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self._joined([node.left, node.right], node)
        if isinstance(node, ast.Call):
            function = self.path(node.func) or ast.unparse(node.func)
            if function in ("list", "tuple") and len(node.args) == 1:
                return self._terms(node.args[0])
            if function == "itertools.chain" and not node.keywords:
                return self._joined(node.args, node)
            if function == f"{_RUNTIME}.select_parameters":
                return [self._text(node.args[1])]
            path = function.removesuffix(".parameters")
            plain = path != function and not node.args and not node.keywords
            if plain and path == "self":
                return []
            parts = path.split(".")
            own = parts[0] == "self" and parts[1:2] != ["trainer"]
            if plain and own and all(part.isidentifier() for part in parts):
                return [".".join(parts[1:])]
        raise InexpressibleError(
            node, f"`{shown(node)}` is no part of the module", _ACCEPTED
        )

    def _joined(self, nodes: list[ast.expr], whole: ast.expr) -> list[str]:
        terms = [self._terms(node) for node in nodes]
        if not all(terms):
            raise InexpressibleError(
                whole, f"`{shown(whole)}` has parameters twice", _ACCEPTED
            )
        return [term for each in terms for term in each]

    # ---- groups ----

    def _grouped(
        self, node: ast.Call, entry: Optimizer, arguments: dict[str, Value]
    ) -> Parameters:
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        known = {"select", "among", "lr", "weight_decay", "no_decay"} | {
            *("lr_scale", "layer_decay", "layers")
        }
        if [ast.unparse(a) for a in node.args] != ["self"] or not known >= set(given):
            raise InexpressibleError(
                node,
                f"`{shown(node)}` is called in a way that no option gives",
                f"parameter_groups(self, ...) with {', '.join(sorted(known))}",
            )
        found = Parameters()
        if "select" in given:
            found.select = self._text(given["select"])
        for name in ("lr", "weight_decay"):
            if name in given and entry.argument(name) is not None:
                self._keep(name, given[name], entry, arguments, found)
        scales: tuple[tuple[str, float], ...] = ()
        if isinstance(given.get("lr_scale"), ast.Dict):
            pairs = given["lr_scale"]
            assert isinstance(pairs, ast.Dict)
            scales = tuple(
                (self._text(key), float(self.values.number(value)))
                for key, value in zip(pairs.keys, pairs.values, strict=True)
                if key is not None
            )
        spared = given.get("no_decay")
        decay = given.get("layer_decay")
        found.groups = GroupSpec(
            tuple(self.values.value(spared)) if spared is not None else (),
            scales,
            float(self.values.number(decay)) if decay is not None else None,
            self._text(given["layers"]) if "layers" in given else "",
        )
        return found

    def _keep(
        self,
        name: str,
        node: ast.expr,
        entry: Optimizer,
        arguments: dict[str, Value],
        found: Parameters,
    ) -> None:
        """Take the rate or the decay that groups are made with for the optimizer's own."""
        argument = entry.argument(name)
        assert argument is not None
        value = self.values.read(argument, node, node)
        own = arguments.get(name, argument.default)
        if name == "lr" and value != own:
            raise InexpressibleError(
                node,
                f"`lr` of the groups is {shown(node)}, that of the optimizer is not",
                "the same in both",
            )
        if value != own:
            found.values[name] = value

    def _dictionaries(
        self,
        node: ast.List | ast.Tuple,
        entry: Optimizer,
        arguments: dict[str, Value],
    ) -> Parameters:
        """Read a list of groups by hand: parts of the module, some with their own values."""
        terms: list[str] = []
        scales: list[tuple[str, float]] = []
        spared: list[str] = []
        own = dict(arguments)
        groups = [self._dictionary(group) for group in node.elts]
        if len(groups) == 1:
            selector, given = groups[0]
            values = {
                name: self._own(entry, name, value) for name, value in given.items()
            }
            return Parameters(selector, values=values)
        for group, (selector, given) in zip(node.elts, groups, strict=True):
            if not selector:
                raise InexpressibleError(
                    group, "a group of all parameters, and others", _ACCEPTED
                )
            terms.append(selector)
            for name, value in given.items():
                if name == "lr":
                    factor = self._factor(value, own.get("lr"), entry)
                    scales += [(term, factor) for term in selector.split(",")]
                    continue
                number = self._own(entry, name, value)
                default = own.get(name, entry.argument(name).default)  # type: ignore[union-attr]
                if name == "weight_decay" and number == 0 and default != 0:
                    spared += selector.split(",")
                elif number != default:
                    raise InexpressibleError(
                        value,
                        f"`{name}` differs between groups",
                        "the optimizer's own in all groups; lr may differ, and "
                        "weight_decay may be 0",
                    )
        kept = tuple(scale for scale in scales if scale[1] != 1)
        return Parameters(",".join(terms), GroupSpec(tuple(spared), kept))

    def _dictionary(self, node: ast.expr) -> tuple[str, dict[str, ast.expr]]:
        if not isinstance(node, ast.Dict):
            raise InexpressibleError(
                node, f"`{shown(node)}` is no group that can be read", _ACCEPTED
            )
        given: dict[str, ast.expr] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if not isinstance(key, ast.Constant):
                raise InexpressibleError(node, "a group with unknown keys", _ACCEPTED)
            given[str(key.value)] = value
        if "params" not in given:
            raise InexpressibleError(node, 'a group without "params"', _ACCEPTED)
        given.pop("name", None)
        return self._selector(given.pop("params")), given

    def _own(self, entry: Optimizer, name: str, value: ast.expr) -> Value:
        argument = entry.argument(name)
        if argument is None:
            raise InexpressibleError(
                value,
                f"`{entry.class_name}` has no argument `{name}`",
                ", ".join(known.name for known in entry.arguments),
            )
        return self.values.read(argument, value, value)

    def _factor(self, node: ast.expr, base: Value, entry: Optimizer) -> float:
        """Return which part of the optimizer's rate a group has."""
        argument = entry.argument("lr")
        assert argument is not None
        if base is None and isinstance(argument.default, (int, float)):
            base = argument.default
        if isinstance(base, Hparam):
            factor = self._of_hparam(node, base)
        else:
            rate = self.values.value(node)
            factor = None
            if isinstance(rate, (int, float)) and isinstance(base, (int, float)):
                factor = round(rate / base, 12) if base else None
                if factor and not math.isclose(factor * base, rate, rel_tol=1e-9):
                    factor = None
        if not factor or factor <= 0:
            raise InexpressibleError(
                node,
                f"`{shown(node)}` is no multiple of the optimizer's rate",
                "numbers for both rates, or as in 0.1 * self.hparams.lr",
            )
        return float(factor)

    def _of_hparam(self, node: ast.expr, base: Hparam) -> float | None:
        def is_base(part: ast.expr) -> bool:
            try:
                return bool(self.values.value(part) == base)
            except InexpressibleError:
                return False

        if is_base(node):
            return 1.0
        if isinstance(node, ast.BinOp):
            left, right = node.left, node.right
            if isinstance(node.op, ast.Mult) and is_base(right):
                return float(self.values.number(left))
            if isinstance(node.op, ast.Mult) and is_base(left):
                return float(self.values.number(right))
            if isinstance(node.op, ast.Div) and is_base(left):
                return round(1 / float(self.values.number(right)), 12)
        return None

    def _text(self, node: ast.expr) -> str:
        value = self.values.value(node)
        if not isinstance(value, str):
            raise InexpressibleError(node, f"`{shown(node)}` is no text", "a text")
        return value


def _filtered(node: ast.expr) -> ast.expr | None:
    """Return what trainable parameters are taken from, None if nothing is filtered so."""
    if (
        isinstance(node, ast.Call)
        and ast.unparse(node.func) == "filter"
        and len(node.args) == 2
        and isinstance(node.args[0], ast.Lambda)
    ):
        body = node.args[0].body
        if isinstance(body, ast.Attribute) and body.attr == "requires_grad":
            return node.args[1]
    if isinstance(node, (ast.ListComp, ast.GeneratorExp)) and len(node.generators) == 1:
        (part,) = node.generators
        conditions = [ast.unparse(test) for test in part.ifs]
        same = ast.unparse(node.elt) == ast.unparse(part.target)
        if same and conditions in ([], [f"{ast.unparse(node.elt)}.requires_grad"]):
            return part.iter
    return None
