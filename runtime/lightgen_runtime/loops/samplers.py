"""What a loader, or a combination of loaders, draws from: its samplers and generators."""

from __future__ import annotations

from typing import Any

import torch

from lightgen_runtime.utilities.combined_loader import CombinedLoader


def loaders_of(loader: Any) -> list[Any]:
    """Return the loaders of a combination, or the one loader."""
    return loader.flattened if isinstance(loader, CombinedLoader) else [loader]


def announce_epoch(loader: Any, epoch: int) -> None:
    """Tell samplers that shuffle by epoch which one begins."""
    for sampler in samplers_of(loader):
        set_epoch = getattr(sampler, "set_epoch", None)
        if callable(set_epoch):
            set_epoch(epoch)


def samplers_of(loader: Any) -> list[Any]:
    """Return the samplers of a loader, or of all loaders of a combination, once each."""
    found = []
    for each in loaders_of(loader):
        batch_sampler = getattr(each, "batch_sampler", None)
        found += [
            getattr(each, "sampler", None),
            batch_sampler,
            getattr(batch_sampler, "sampler", None),
        ]
    return list({id(s): s for s in found if s is not None}.values())


def generators_of(loader: Any) -> list[torch.Generator]:
    """Return the random generators that a loader and its samplers own."""
    owners = [*loaders_of(loader), *samplers_of(loader)]
    found = [getattr(owner, "generator", None) for owner in owners]
    unique = {id(g): g for g in found if isinstance(g, torch.Generator)}
    return list(unique.values())


def set_generators(loader: Any, states: list[torch.Tensor]) -> None:
    """Put back the generators that a loader and its samplers own."""
    for generator, state in zip(generators_of(loader), states, strict=False):
        generator.set_state(state)
