"""Random number generators: seeding them, isolating them, saving and restoring them."""

from __future__ import annotations

import hashlib
import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.rank_zero import (
    rank_zero_info,
    rank_zero_only,
    rank_zero_warn,
)

MAX_SEED = 2**32 - 1  # the largest that numpy.random.seed takes
SEED_VARIABLE = "PL_GLOBAL_SEED"
WORKERS_VARIABLE = "PL_SEED_WORKERS"
_TWISTER_WORDS = 624


def seed_everything(
    seed: int | None = None, workers: bool = False, verbose: bool = True
) -> int:
    """Seed Python, NumPy and PyTorch on every device.

    The seed is also put into the environment (`PL_GLOBAL_SEED`), so that processes
    started later use it.

    Args:
        seed: 0 to 2**32 - 1. `None` takes `PL_GLOBAL_SEED`, or 0 where it is not set.
        workers: Give every dataloader worker of the run its own seed as well.
        verbose: Say which seed was set.

    Returns:
        The seed in force.

    Raises:
        MisconfigurationException: The seed is not an integer in that range.
    """
    source = "`seed`"
    given: object = seed
    if seed is None:
        source = f"the environment variable {SEED_VARIABLE}"
        given = os.environ.get(SEED_VARIABLE, "0")
    value = _checked_seed(given, source)
    if verbose:
        rank_zero_info(f"Seed set to {value}")
    os.environ[SEED_VARIABLE] = str(value)
    os.environ[WORKERS_VARIABLE] = str(int(workers))
    _seed_generators(value)
    return value


def _checked_seed(given: object, source: str) -> int:
    try:
        value = int(str(given))
    except ValueError:
        value = -1
    if not 0 <= value <= MAX_SEED:
        raise MisconfigurationException(
            f"{source} is {given!r}, which is not a seed. Accepted: an integer from 0 "
            f"to {MAX_SEED}."
        )
    return value


def _seed_generators(seed: int) -> None:
    # NumPy is seeded even if nobody imported it yet: the user's data code may later.
    try:
        import numpy
    except ModuleNotFoundError:
        pass
    else:
        numpy.random.seed(seed)
    random.seed(seed)
    torch.manual_seed(seed)


def reset_seed() -> None:
    """Seed everything again as the last `seed_everything` did; nothing without one."""
    seed = os.environ.get(SEED_VARIABLE)
    if seed is not None:
        workers = os.environ.get(WORKERS_VARIABLE, "0") == "1"
        seed_everything(int(seed), workers=workers, verbose=False)


def seed_worker(worker_id: int, rank: int | None = None) -> None:
    """Give a dataloader worker generators that no other worker or rank shares.

    PyTorch derives worker seeds from the main process, which holds the same seed on
    every rank; this mixes in the rank. Pass it as `worker_init_fn`.

    Args:
        worker_id: Number of the worker within its loader.
        rank: Global rank; `None` takes that of this process.
    """
    rank = rank_zero_only.rank if rank is None else rank
    base_seed = torch.initial_seed() - worker_id
    digest = hashlib.sha256(f"{base_seed} {worker_id} {rank}".encode()).digest()
    _seed_generators(int.from_bytes(digest[:4], "big"))


def collect_rng_states(include_cuda: bool = True) -> dict[str, Any]:
    """Return the state of every generator as plain data that a checkpoint may hold.

    NumPy counts only where it was imported, CUDA only where it was used.
    """
    # Words as a tensor: as hundreds of Python integers they would take longer to save
    # than the weights of a small model.
    version, words, gauss = random.getstate()
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": (version, torch.tensor(words), gauss),
    }
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        name, words, *rest = numpy.random.get_state()
        states["numpy"] = (str(name), torch.tensor(words.astype(numpy.int64)), *rest)
    if include_cuda and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states["torch.cuda"] = torch.cuda.get_rng_state_all()
    return states


def set_rng_states(states: dict[str, Any]) -> None:
    """Put every generator back to what `collect_rng_states` found."""
    torch.set_rng_state(states["torch"])
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    if "numpy" in states:
        import numpy

        name, words, *rest = states["numpy"]
        check_twister(words, rest[0])
        numpy.random.set_state((name, words.numpy().astype(numpy.uint32), *rest))
    if "torch.cuda" in states and torch.cuda.is_available():
        _set_cuda_states(states["torch.cuda"])


def check_twister(words: Any, position: int) -> None:
    """Refuse a state of NumPy's Mersenne twister that would read memory beside it.

    Source: NumPy 2.3, which compares neither with what it has.

    Raises:
        ValueError: It has not 624 words, or stands behind them.
    """
    if len(words) != _TWISTER_WORDS or not 0 <= position <= _TWISTER_WORDS:
        raise ValueError(
            f"a Mersenne twister has {_TWISTER_WORDS} words and stands at one of them or "
            f"at their end, not {len(words)} words at {position}"
        )


def _set_cuda_states(states: list[torch.Tensor]) -> None:
    devices = torch.cuda.device_count()
    if len(states) > devices:
        rank_zero_warn(
            f"random states of {len(states)} CUDA devices were saved, and there are "
            f"{devices}: each takes that of its number, and what is drawn on a device "
            "need not go on exactly"
        )
    for device, state in zip(range(devices), states, strict=False):
        torch.cuda.set_rng_state(state, device)


@contextmanager
def seeded_rng(seed: int) -> Iterator[None]:
    """Seed every generator for the block and leave it as it was before."""
    with isolate_rng():
        _seed_generators(seed % (MAX_SEED + 1))
        yield


@contextmanager
def isolate_rng(include_cuda: bool = True) -> Iterator[None]:
    """Leave every generator as it was, whatever the block draws from them."""
    states = collect_rng_states(include_cuda)
    try:
        yield
    finally:
        set_rng_states(states)
