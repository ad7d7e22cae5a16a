"""Parameters that a module holds under several names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from torch import nn


def find_shared_parameters(module: nn.Module) -> list[list[str]]:
    """Return, for each parameter with several names, the dotted names it has."""
    names: defaultdict[int, list[str]] = defaultdict(list)
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names[id(parameter)].append(name)
    return [found for found in names.values() if len(found) > 1]


def set_shared_parameters(
    module: nn.Module, shared_params: Iterable[Sequence[str]]
) -> nn.Module:
    """Tie parameters together again, in place, and return the module.

    Args:
        module: Whose parameters.
        shared_params: As `find_shared_parameters` returned; the first of each wins.
    """
    for first, *others in shared_params:
        parameter = module.get_parameter(first)
        for name in others:
            owner, _, attribute = name.rpartition(".")
            setattr(module.get_submodule(owner), attribute, parameter)
    return module
