"""Parameter groups: which weights decay, and how fast each part learns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from lightgen_runtime.optim.selection import (
    Owned,
    owned_parameters,
    path_pattern,
    selected,
)
from lightgen_runtime.utilities.exceptions import MisconfigurationException


def parameter_groups(
    module: nn.Module,
    *,
    lr: float | None = None,
    weight_decay: float | None = None,
    no_decay: Iterable[str] = (),
    lr_scale: Mapping[str, float] | None = None,
    layer_decay: float | None = None,
    layers: str = "",
    select: str = "",
    among: Iterable[nn.Parameter] | None = None,
) -> list[dict[str, Any]]:
    """Put every trainable parameter into exactly one group.

    Args:
        module: Whose parameters.
        lr: Learning rate to scale; needed with `lr_scale` and `layer_decay`.
        weight_decay: Weight decay of the groups that have it.
        no_decay: What has none: "bias", "norm" (all a normalising layer holds),
            "embedding", or selectors as in `select_parameters`.
        lr_scale: Factor of the learning rate by selector; the last that matches counts.
        layer_decay: Factor of the learning rate from each layer to the one below it,
            above 0 and at most 1. What the module defines behind the layers has the
            whole rate, what it defines before them the smallest.
            Source: Howard and Ruder 2018, section 3.2; Clark et al. 2020, appendix A.
        layers: Names of the modules that are layers, in order, such as
            "backbone.blocks.*".
        select: Take only what this selector picks.
        among: Take only these.

    Returns:
        Groups for an optimizer: "params", "name", and "lr" and "weight_decay" where
        they are set, in the order in which their first parameter is found.

    Raises:
        MisconfigurationException: A selector picks nothing, or a parameter has no shape.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
        >>> groups = parameter_groups(net, weight_decay=0.1, no_decay=("bias", "norm"))
        >>> [(g["name"], len(g["params"]), g["weight_decay"]) for g in groups]
        [('decay', 1, 0.1), ('no_decay', 3, 0.0)]
    """
    owned = list(owned_parameters(module))
    spared = _spared(module, owned, no_decay)
    factors = _factors(module, owned, lr_scale or {}, layer_decay, layers)
    if lr is None and factors:
        raise MisconfigurationException(
            "`parameter_groups` with `lr_scale` or `layer_decay` needs `lr`, the rate "
            "that they scale"
        )
    if select:
        owned = selected(module, owned, select)
    if among is not None:
        chosen = {id(parameter) for parameter in among}
        owned = [entry for entry in owned if id(entry.parameter) in chosen]
    groups: dict[tuple[bool, float], dict[str, Any]] = {}
    for entry in owned:
        factor = factors.get(entry.name, 1.0)
        decays = entry.name not in spared
        group = groups.get((decays, factor))
        if group is None:
            group = groups[decays, factor] = {"params": []}
            if weight_decay is not None:
                group["weight_decay"] = weight_decay if decays else 0.0
            if factors and lr is not None:
                group["lr"] = lr * factor
            group["name"] = _name(decays, factor, bool(spared), bool(factors))
        group["params"].append(entry.parameter)
    return list(groups.values())


def _name(decays: bool, factor: float, splits: bool, scales: bool) -> str:
    parts = ["decay" if decays else "no_decay"] if splits else []
    parts += [f"lr_x{factor:g}"] if scales else []
    return "_".join(parts) or "all"


def _spared(module: nn.Module, owned: list[Owned], no_decay: Iterable[str]) -> set[str]:
    names: set[str] = set()
    for word in no_decay:
        if word == "bias":
            found = [e for e in owned if e.name.rpartition(".")[2].endswith("bias")]
        elif word == "norm":
            found = [e for e in owned if any(map(_is_norm, e.owners))]
        elif word == "embedding":
            kinds = (nn.Embedding, nn.EmbeddingBag)
            found = [e for e in owned if any(isinstance(o, kinds) for o in e.owners)]
        else:
            found = selected(module, owned, word)
        names.update(entry.name for entry in found)
    return names


def _is_norm(module: nn.Module) -> bool:
    # Every normalising layer of torch, and those that people write, is called so.
    return re.search(r"Norm(\dd)?$", type(module).__name__) is not None


def _factors(
    module: nn.Module,
    owned: list[Owned],
    lr_scale: Mapping[str, float],
    layer_decay: float | None,
    layers: str,
) -> dict[str, float]:
    factors: dict[str, float] = {}
    if layer_decay is not None:
        factors = _layer_factors(module, owned, layer_decay, layers)
    for selector, factor in lr_scale.items():
        for entry in selected(module, owned, selector):
            factors[entry.name] = factors.get(entry.name, 1.0) * factor
    return factors


def _layer_factors(
    module: nn.Module, owned: list[Owned], layer_decay: float, layers: str
) -> dict[str, float]:
    pattern = path_pattern(layers)
    found = [name for name, _ in module.named_modules() if pattern.fullmatch(name)]
    if not found:
        raise MisconfigurationException(
            f"`layers={layers!r}` names no module of {type(module).__name__}"
        )
    # In the order of definition: what stands before the layers is below them.
    factors, depth = {}, len(found) + 1
    for entry in owned:
        above = [n for n, name in enumerate(found) if entry.name.startswith(f"{name}.")]
        if above:
            depth = len(found) - above[0]
        elif depth == 1:
            depth = 0
        factors[entry.name] = layer_decay**depth
    return factors
