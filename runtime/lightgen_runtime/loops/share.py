"""Splitting the data of one loader between the processes of a run.

A loader keeps its class and all its arguments: a copy of it gets another sampler, and
nothing is built again by a constructor.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sized
from copy import copy
from itertools import cycle, islice
from typing import Any

from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)

from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.seed import SEED_VARIABLE, seeded_rng


def draws_at_once(sampler: Any) -> bool:
    """Tell whether a sampler is one of those here, which begin by drawing everything."""
    return isinstance(sampler, (_EvenShare, _ExactShare))


def splits(loader: Any) -> bool:
    """Tell whether a loader's data can be and are still to be split between processes."""
    if not isinstance(loader, DataLoader) or isinstance(
        loader.dataset, IterableDataset
    ):
        return False
    samplers = (loader.sampler, getattr(loader.batch_sampler, "sampler", None))
    return not any(isinstance(sampler, DistributedSampler) for sampler in samplers)


def train_share(
    loader: DataLoader[Any], world_size: int, rank: int, seed: int | None = None
) -> DataLoader[Any]:
    """Return a loader of this process's part of the training data.

    Every process gets as many batches. All samples are drawn; to come out even, a few
    are drawn twice.

    Args:
        loader: Stays as it is.
        world_size: Number of processes.
        rank: Number of this one.
        seed: Of the order, where it is random; None takes the run's.

    Raises:
        MisconfigurationException: Its sampler has no length.
    """
    batches = loader.batch_sampler
    seed = _seed() if seed is None else seed
    if batches is None or type(batches) is BatchSampler:
        sampler = _split_samples(loader, world_size, rank, seed)
        if batches is not None:  # else each sample of such a loader is a batch
            batches = BatchSampler(sampler, batches.batch_size, batches.drop_last)
        return with_samplers(loader, sampler, batches)
    _check_length(loader, batches)
    share = _EvenShare(batches, world_size, rank, seed)
    return with_samplers(loader, loader.sampler, share)


def rest_share(
    loader: DataLoader[Any], rest: list[Any], world_size: int, rank: int
) -> DataLoader[Any]:
    """Return a loader of this process's part of what is left of an epoch.

    Args:
        loader: All of the training data; stays as it is.
        rest: Sample numbers; index batches of a batch sampler of the user's own.
        world_size: Number of processes.
        rank: Number of this one.
    """
    batches = loader.batch_sampler
    if type(batches) is not BatchSampler:
        share = _EvenShare(rest, world_size, rank, 0)
        if batches is None:
            return with_samplers(loader, share, None)
        return with_samplers(loader, loader.sampler, share)
    size = batches.batch_size
    if batches.drop_last and math.ceil(len(rest) / world_size) < size:
        # Too few for one batch of each: an epoch without a last batch would not end.
        rest = list(islice(cycle(rest), world_size * size))
    share = _EvenShare(rest, world_size, rank, 0)
    return with_samplers(loader, share, BatchSampler(share, size, batches.drop_last))


def undivided(loader: DataLoader[Any]) -> DataLoader[Any]:
    """Return a loader without the split that its user has made by a `DistributedSampler`."""
    split: Any = loader.sampler
    if type(split) is not DistributedSampler:
        return loader
    sampler: Any = SequentialSampler(loader.dataset)  # type: ignore[arg-type]
    if split.shuffle:
        sampler = RandomSampler(loader.dataset, generator=loader.generator)  # type: ignore[arg-type]
    batches: Any = loader.batch_sampler
    if batches is not None:
        batches = BatchSampler(sampler, batches.batch_size, batches.drop_last)
    return with_samplers(loader, sampler, batches)


def dealt_by(loader: DataLoader[Any]) -> DistributedSampler[Any] | None:
    """Return what deals a loader's samples or batches out to processes, if it is known."""
    batches: Any = loader.batch_sampler
    if batches is None or type(batches) is BatchSampler:
        batches = loader.sampler
    known = isinstance(batches, _EvenShare) or type(batches) is DistributedSampler
    return batches if known else None


def evaluation_share(
    loader: DataLoader[Any], world_size: int, rank: int
) -> DataLoader[Any]:
    """Return a loader of every `world_size`-th batch, from number `rank` on.

    The batches are those of a single process, each in one process: nothing is left out
    and nothing comes twice. Some processes may have a batch more than others, or none.
    Arguments and errors are those of `train_share`.
    """
    if loader.batch_sampler is None:
        _check_length(loader, loader.sampler)
        share = _ExactShare(loader.sampler, world_size, rank, _seed())
        return with_samplers(loader, share, None)
    _check_length(loader, loader.batch_sampler)
    share = _ExactShare(loader.batch_sampler, world_size, rank, _seed())
    return with_samplers(loader, loader.sampler, share)


def whole_of(loader: DataLoader[Any]) -> DataLoader[Any]:
    """Return a loader of all batches that `evaluation_share` has taken a part of."""
    if loader.batch_sampler is None:
        return with_samplers(loader, loader.sampler._drawn, None)  # type: ignore[attr-defined]
    return with_samplers(loader, loader.sampler, loader.batch_sampler._drawn)  # type: ignore[attr-defined]


def with_samplers(
    loader: DataLoader[Any], sampler: Any, batch_sampler: Any
) -> DataLoader[Any]:
    """Return a copy of a loader that draws by other samplers."""
    drawing = copy(loader)
    # Around the loader's guard against assigning another sampler, which protects
    # arguments that were derived from it; none of them changes here.
    vars(drawing).update(sampler=sampler, batch_sampler=batch_sampler, _iterator=None)
    return drawing


def _split_samples(
    loader: DataLoader[Any], world_size: int, rank: int, seed: int
) -> DistributedSampler[Any]:
    sampler = loader.sampler
    _check_length(loader, sampler)
    plain = type(sampler) is SequentialSampler
    if type(sampler) is RandomSampler:
        size = len(loader.dataset)  # type: ignore[arg-type]
        plain = not sampler.replacement and sampler.num_samples == size
    if plain:
        shuffle = type(sampler) is RandomSampler
        return DistributedSampler(
            loader.dataset, world_size, rank, shuffle=shuffle, seed=seed
        )
    return _EvenShare(sampler, world_size, rank, seed)


class _EvenShare(DistributedSampler[Any]):
    """Every `world_size`-th of what a sampler draws, as many for each process."""

    def __init__(self, drawn: Any, world_size: int, rank: int, seed: int) -> None:
        super().__init__(drawn, world_size, rank, shuffle=False, seed=seed)
        self._drawn = drawn
        self.generator = _generator_of(drawn)

    def __iter__(self) -> Iterator[Any]:
        drawn = _draw(self._drawn, self.seed + self.epoch)
        return (drawn[position] for position in super().__iter__())

    def set_epoch(self, epoch: int) -> None:
        """Draw anew; tell the sampler too, if it wants to know."""
        super().set_epoch(epoch)
        _pass_on_epoch(self._drawn, epoch)


class _ExactShare:
    """Every `world_size`-th of what a sampler draws, each for one process only."""

    def __init__(self, drawn: Any, world_size: int, rank: int, seed: int) -> None:
        self._drawn = drawn
        self._world_size = world_size
        self._rank = rank
        self._seed = seed
        self.generator = _generator_of(drawn)

    def __len__(self) -> int:
        return math.ceil((len(self._drawn) - self._rank) / self._world_size)

    def __iter__(self) -> Iterator[Any]:
        drawn: Iterable[Any] = self._drawn
        order = drawn.sampler if type(drawn) is BatchSampler else drawn
        if type(order) is not SequentialSampler:
            drawn = _draw(drawn, self._seed)
        return islice(iter(drawn), self._rank, None, self._world_size)

    def set_epoch(self, epoch: int) -> None:
        """Tell the sampler, if it wants to know."""
        _pass_on_epoch(self._drawn, epoch)


def _draw(sampler: Iterable[Any], seed: int) -> list[Any]:
    """Return everything a sampler draws, the same in every process."""
    with seeded_rng(seed):
        return list(sampler)


def _generator_of(sampler: Any) -> Any:
    """Return the generator that a sampler draws from, so that checkpoints hold it."""
    inner = getattr(sampler, "sampler", None)
    return getattr(sampler, "generator", None) or getattr(inner, "generator", None)


def _pass_on_epoch(sampler: Any, epoch: int) -> None:
    for each in (sampler, getattr(sampler, "sampler", None)):
        set_epoch = getattr(each, "set_epoch", None)
        if callable(set_epoch):
            set_epoch(epoch)


def _seed() -> int:
    return int(os.environ.get(SEED_VARIABLE, "0"))


def _check_length(loader: DataLoader[Any], sampler: Any) -> None:
    # An infinite length raises by itself, as an integer it cannot be.
    if not isinstance(sampler, Sized):
        raise MisconfigurationException(
            f"{type(sampler).__name__}, a sampler of {type(loader).__name__}, has no "
            "length, so it cannot be split between processes. Give it a `__len__`; or "
            "split it yourself and pass `Trainer(use_distributed_sampler=False)`."
        )
