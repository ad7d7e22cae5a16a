"""Random generators that a dataset keeps for itself, such as those of its augmentation."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from lightgen_runtime.utilities.seed import check_twister

# Deep enough for a dataset in a subset, with a list of transforms in a composition.
_DEPTH = 6
_MANY = 64  # a longer container holds data
_MOST = 5000  # objects to look at
_PHILOX_WORDS = 4  # Source: NumPy 2.3, which does not compare a position with it


def generators_in(owner: Any) -> list[Any]:
    """Return the generators that an object reaches through its attributes, in order."""
    return list({id(found): found for found in _search(owner, _DEPTH, set())}.values())


def generators_of_module(module: nn.Module) -> list[Any]:
    """Return the generators that a module and its parts have as attributes, in order."""
    owned = (own for part in module.modules() for own in vars(part).values())
    return [own for own in owned if isinstance(own, _kinds())]


def states_of(generators: list[Any]) -> list[Any]:
    """Return the states of generators as plain data."""
    return [_state(generator) for generator in generators]


def restore(generators: list[Any], states: list[Any]) -> None:
    """Put states back, in the same order; others stay if there are other generators."""
    if len(generators) == len(states):
        for generator, state in zip(generators, states, strict=True):
            _set_state(generator, state)


def _search(owner: Any, depth: int, seen: set[int]) -> Iterator[Any]:
    if id(owner) in seen or depth == 0 or len(seen) >= _MOST:
        return
    seen.add(id(owner))
    if isinstance(owner, _kinds()):
        yield owner
        return
    if isinstance(owner, (torch.Tensor, type)):
        return
    parts: Any = getattr(owner, "__dict__", {})
    if isinstance(owner, (dict, list, tuple)):
        parts = owner
    if len(parts) <= _MANY:
        for part in parts.values() if hasattr(parts, "values") else parts:
            yield from _search(part, depth - 1, seen)


def _kinds() -> tuple[type, ...]:
    numpy = sys.modules.get("numpy")
    kinds: tuple[type, ...] = (random.Random, torch.Generator)
    if numpy is not None:
        kinds += (numpy.random.Generator, numpy.random.RandomState)
    return kinds


def _state(generator: Any) -> Any:
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if hasattr(generator, "bit_generator"):
        return generator.bit_generator.state
    return generator.get_state(legacy=False)


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, random.Random):
        version, words, gauss = state
        generator.setstate((version, tuple(words), gauss))
    elif isinstance(generator, torch.Generator):
        generator.set_state(state)
    else:
        if not 0 <= state.get("buffer_pos", 0) <= _PHILOX_WORDS:
            raise ValueError(f"a Philox has {_PHILOX_WORDS} words in its buffer")
        state = {**state, "state": {**state["state"]}}
        if "key" in state["state"]:  # of a Mersenne twister; an array, once
            state["state"]["key"] = state["state"]["key"].numpy()
        if "pos" in state["state"]:
            check_twister(state["state"]["key"], state["state"]["pos"])
        if hasattr(generator, "bit_generator"):
            generator.bit_generator.state = state
        else:
            generator.set_state(state)
