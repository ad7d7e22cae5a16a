"""Times taken in turn, so that a busy moment of the machine falls on all alike."""

from __future__ import annotations

import gc
import platform
import statistics
import sys
from collections.abc import Callable, Collection, Mapping
from datetime import date
from importlib import metadata
from typing import NamedTuple

import torch

# Those whose times need less precision take part in two rounds of eight, one in each order.
SELDOM = (8, (0, 3))

PACKAGES = ("torch", "lightning", "accelerate", "pytorch-ignite")


class Spread(NamedTuple):
    """Median and quartiles of some values."""

    low: float
    median: float
    high: float

    def text(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def spread(values: list[float]) -> Spread:
    """Return the quartiles of the values."""
    if len(values) == 1:
        return Spread(*values * 3)
    return Spread(*statistics.quantiles(values, n=4, method="inclusive"))


def paired(
    runs: Mapping[str, Callable[[], float]], rounds: int, seldom: Collection[str] = ()
) -> dict[str, tuple[Spread, Spread]]:
    """Time every run once a round, in alternating order.

    Args:
        runs: By name, each returning its seconds; the first is what others are held
            against.
        rounds: How many, after one that warms up and does not count.
        seldom: Names of those that take part in every fourth round only, on average.

    Returns:
        By name: the seconds, and their ratio to the first one's of the same round.
    """
    base = next(iter(runs))
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    ratios: dict[str, list[float]] = {name: [] for name in runs}
    # What the packages made when they were imported is not to be scanned in every run.
    gc.collect()
    gc.freeze()
    for number in range(-1, rounds):
        names = [n for n in runs if n not in seldom or number % SELDOM[0] in SELDOM[1]]
        times = {name: runs[name]() for name in names[:: -1 if number % 2 else 1]}
        if number >= 0:
            for name, time in times.items():
                seconds[name].append(time)
                ratios[name].append(time / times[base])
    return {name: (spread(seconds[name]), spread(ratios[name])) for name in runs}


def versions() -> str:
    """Name the day, the machine and the versions that times belong to."""
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            found.append(f"{package} not installed")
    python = ".".join(map(str, sys.version_info[:3]))
    where = f"{platform.system()} {platform.machine()}"
    return f"{date.today()}, {where}, Python {python}, {', '.join(found)}"


def one_thread() -> None:
    """Let torch use one thread: more would be timed along with the neighbours'."""
    torch.set_num_threads(1)
