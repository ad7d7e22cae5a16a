"""Picking parameters of a module by where they are, what owns them and their shape."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from torch import nn

from lightgen_runtime.utilities.compiled_names import plain_name
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.nearest import did_you_mean

_COMPARISONS = {
    "==": operator.eq,
    ">=": operator.ge,
    "<=": operator.le,
    "<": operator.lt,
    ">": operator.gt,
}
_NDIM = re.compile(r"ndim\s*(==|>=|<=|<|>)\s*(\d+)")


class Owned(NamedTuple):
    """A parameter and where it is.

    Attributes:
        name: Its dotted name in the module.
        parameter: The parameter itself.
        owners: The modules that hold it directly: several if weights are tied.
    """

    name: str
    parameter: nn.Parameter
    owners: tuple[nn.Module, ...]


def select_parameters(module: nn.Module, selector: str) -> list[nn.Parameter]:
    """Return the trainable parameters that a selector picks, each once.

    Args:
        module: Where to look.
        selector: Terms joined by commas: a path of a module or a parameter, with `*`
            for any part of one name; `type:Linear` for what modules of that class hold;
            `ndim>=2`. With `!` before it a term takes away. Without a positive term,
            all parameters are there to be taken from.

    Raises:
        MisconfigurationException: The selector picks nothing, or cannot be read.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
        >>> [p.shape for p in select_parameters(net, "ndim==1,!type:LayerNorm")]
        [torch.Size([2])]
    """
    owned = list(owned_parameters(module))
    return [entry.parameter for entry in selected(module, owned, selector)]


def split_parameters(
    module: nn.Module, *selectors: str
) -> tuple[list[nn.Parameter], ...]:
    """Divide the trainable parameters among selectors; the last list is the rest.

    Args:
        module: Whose parameters.
        selectors: Each takes what those before it left.

    Returns:
        One list for each selector, and one with what none of them took.

    Raises:
        MisconfigurationException: A selector picks nothing, or nothing is left.
    """
    left = list(owned_parameters(module))
    taken: list[list[nn.Parameter]] = []
    for selector in selectors:
        chosen = selected(module, left, selector)
        names = {entry.name for entry in chosen}
        left = [entry for entry in left if entry.name not in names]
        taken.append([entry.parameter for entry in chosen])
    if not left:
        raise MisconfigurationException(
            f"the selectors {', '.join(map(repr, selectors))} take every parameter of "
            f"{type(module).__name__}, and the last optimizer has none"
        )
    return (*taken, [entry.parameter for entry in left])


def freeze(module: nn.Module, selector: str) -> None:
    """Stop training what a selector picks: its parameters require no gradient.

    Raises:
        MisconfigurationException: The selector picks nothing, or cannot be read.
    """
    for parameter in select_parameters(module, selector):
        parameter.requires_grad = False


def owned_parameters(module: nn.Module) -> Iterator[Owned]:
    """Yield every trainable parameter once, with its first name and all its owners.

    Raises:
        MisconfigurationException: A parameter has no shape yet.
    """
    owners: dict[nn.Parameter, list[nn.Module]] = {}
    for part in module.modules():
        for parameter in part.parameters(recurse=False):
            owners.setdefault(parameter, []).append(part)
    for name, parameter in module.named_parameters():
        if isinstance(parameter, nn.UninitializedParameter):
            raise MisconfigurationException(
                f"the parameter `{name}` of a lazy module has no shape yet, so it cannot "
                "be put into a group. Run one batch through the module in `__init__` or "
                "`configure_model`, before optimizers are made."
            )
        if parameter.requires_grad:
            yield Owned(plain_name(name), parameter, tuple(owners[parameter]))


def selected(module: nn.Module, owned: list[Owned], selector: str) -> list[Owned]:
    """Return the entries that a selector picks, in their order.

    Raises:
        MisconfigurationException: None is picked, or the selector cannot be read.
    """
    terms = [term.strip() for term in selector.split(",")]
    wanted = [_matcher(t) for t in terms if not t.startswith("!")]
    unwanted = [_matcher(t[1:]) for t in terms if t.startswith("!")]
    found = [
        entry
        for entry in owned
        if (not wanted or any(matches(entry) for matches in wanted))
        and not any(matches(entry) for matches in unwanted)
    ]
    if found:
        return found
    names = [*dict(module.named_modules()), *dict(module.named_parameters())]
    paths = [path for path in dict.fromkeys(map(plain_name, names)) if path]
    raise MisconfigurationException(
        f"the selector {selector!r} picks no trainable parameter of "
        f"{type(module).__name__}, whose parts are {', '.join(paths[:12])}"
        f"{', ...' if len(paths) > 12 else ''}.{did_you_mean(selector, paths)}"
    )


def path_pattern(glob: str) -> re.Pattern[str]:
    """Return what matches a dotted path; `*` stands for any part of one name."""
    return re.compile(re.escape(glob).replace(r"\*", "[^.]*"))


def _matcher(term: str) -> Callable[[Owned], bool]:
    if term.startswith("type:"):
        wanted = term.removeprefix("type:")
        return lambda entry: any(
            wanted in (base.__name__ for base in type(owner).__mro__)
            for owner in entry.owners
        )
    if (match := _NDIM.fullmatch(term)) is not None:
        compare, dims = _COMPARISONS[match[1]], int(match[2])
        return lambda entry: bool(compare(entry.parameter.ndim, dims))
    if not re.fullmatch(r"[\w*]+(\.[\w*]+)*", term):
        raise MisconfigurationException(
            f"the selector term {term!r} cannot be read; accepted are a path such as "
            "'backbone' or 'blocks.*.bias', 'type:Linear' and 'ndim>=2', each with or "
            "without '!' before it"
        )
    within = re.compile(path_pattern(term).pattern + r"(\..*)?")
    return lambda entry: within.fullmatch(entry.name) is not None
