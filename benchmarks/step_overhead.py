"""What a training step costs beside a hand-written loop, side by side in one run.

    python benchmarks/step_overhead.py [--quick] [--only "tiny MLP"]

Every contender trains the same net on the same batches, which lie ready in memory, so that
only the loop differs; that all end with the same weights is checked. In each round they run
one after the other, and each time is divided by the hand-written loop's of the same round.
Calls are Python calls a step more than the hand-written loop's, counted apart. Lightning,
Accelerate and Ignite take part if they are installed.
"""

from __future__ import annotations

import argparse
import gc
import logging
import sys
import warnings
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch

import lightgen_runtime
from contenders import by_hand, trainers
from contenders.workloads import (
    ROWS,
    TINY,
    Batches,
    Contender,
    Ran,
    Variant,
    Workload,
)
from paired import Spread, one_thread, paired

OURS = "lightgen_runtime"
ROUNDS, ROUNDS_IF_QUICK = 20, 2
# Ratios asked for; None where none is.
LOGGED_BOUND = {"10 metrics": 1.12, "10 epoch means": 1.12}


class Cell(NamedTuple):
    """One contender in one row.

    Attributes:
        microseconds: A step's.
        ratio: To the hand-written loop.
        calls: Python calls a step more than the hand-written loop's.
    """

    microseconds: Spread
    ratio: Spread
    calls: float


class Row(NamedTuple):
    """All contenders at one piece of work."""

    workload: str
    variant: str
    bound: float | None
    cells: dict[str, Cell]


def contenders() -> dict[str, Contender]:
    """Return what is installed, the hand-written loop first, then ours."""
    found: dict[str, Contender] = {
        "by hand": by_hand.run,
        OURS: partial(trainers.run, lightgen_runtime),
    }
    if find_spec("lightning"):
        found["Lightning"] = partial(trainers.run, import_module("lightning"))
    if find_spec("accelerate"):
        found["Accelerate"] = import_module("contenders.with_accelerate").run
    if find_spec("ignite"):
        found["Ignite"] = import_module("contenders.with_ignite").run
    return found


def bound(workload: Workload, variant: Variant) -> float | None:
    """Return the ratio that ours must keep, None where none is set."""
    if variant.callbacks or variant.name.startswith("two"):
        return None
    if workload is not TINY:
        return 1.02
    return 1.06 if variant.logged < 2 else LOGGED_BOUND[variant.name]


def row(
    workload: Workload,
    variant: Variant,
    runs: dict[str, Contender],
    rounds: int,
) -> Row:
    """Measure all contenders at one piece of work."""
    # Long enough that files opened and closed once do not count as a step's cost.
    steps = workload.steps * (5 if variant.callbacks else 1)
    batches = Batches(workload.batch, steps)
    check_same_work(workload, variant, runs)

    def seconds(run: Contender) -> float:
        return run(workload, variant, batches).seconds

    taken = paired(
        {name: partial(seconds, run) for name, run in runs.items()},
        rounds,
        seldom=[name for name in runs if name not in ("by hand", OURS)],
    )
    calls = {name: calls_a_step(run, workload, variant) for name, run in runs.items()}
    cells = {
        name: Cell(
            Spread(*(1e6 * value / steps for value in times)),
            ratio,
            calls[name] - calls["by hand"],
        )
        for name, (times, ratio) in taken.items()
    }
    return Row(workload.name, variant.name, bound(workload, variant), cells)


def check_same_work(
    workload: Workload, variant: Variant, runs: dict[str, Contender]
) -> None:
    """Refuse to compare loops that do not end with the same weights and reports."""
    batches = Batches(workload.batch, 120)
    results = {name: run(workload, variant, batches) for name, run in runs.items()}
    expected = results["by hand"]
    for name, result in results.items():
        if not torch.equal(result.weights, expected.weights):
            raise SystemExit(
                f"{workload.name}, {variant.name}: {name} trains otherwise"
            )
        if not variant.callbacks and not same_rows(result, expected):
            raise SystemExit(
                f"{workload.name}, {variant.name}: {name} reports otherwise"
            )


def same_rows(one: Ran, other: Ran) -> bool:
    """Tell whether two runs reported the same, up to rounding."""
    if [list(row) for row in one.rows] != [list(row) for row in other.rows]:
        return False
    pairs = zip(one.rows, other.rows, strict=True)
    return all(abs(a[name] - b[name]) < 1e-5 for a, b in pairs for name in a)


def calls_a_step(run: Contender, workload: Workload, variant: Variant) -> float:
    """Count Python calls a step, as the difference of a longer and a shorter run.

    Both are shorter than the interval of reports.
    """

    def count(steps: int) -> int:
        calls = 0

        def profile(frame: Any, event: str, argument: Any) -> None:
            nonlocal calls
            calls += event == "call"

        batches = Batches(workload.batch, steps)
        # What the collector calls is of things that others have left behind.
        gc.collect()
        gc.disable()
        sys.setprofile(profile)
        try:
            run(workload, variant, batches)
        finally:
            sys.setprofile(None)
            gc.enable()
        return calls

    # Imports that the first run causes are not to be counted, nor to be slowed down.
    run(workload, variant, Batches(workload.batch, 8))
    return (count(40) - count(20)) / 20


def measure(
    rounds: int, only: str | None = None, show: Callable[[Row], None] | None = None
) -> list[Row]:
    """Measure every row, or those of one workload."""
    one_thread()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    runs = contenders()
    rows = []
    for workload, variant in ROWS:
        if only in (None, workload.name):
            rows.append(row(workload, variant, runs, rounds))
            if show is not None:
                show(rows[-1])
    return rows


def show(row: Row) -> None:
    """Print one row."""
    limit = "" if row.bound is None else f", at most {row.bound}"
    print(f"\n{row.workload}, {row.variant}{limit}")
    for name, cell in row.cells.items():
        print(
            f"  {name:<18} {cell.microseconds.median:9.1f} us"
            f"  {cell.ratio.text():<22} {cell.calls:+8.1f} calls",
            flush=True,
        )


def main() -> None:
    """Measure and print one table a row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--only", help="name of one workload")
    options = parser.parse_args()
    measure(ROUNDS_IF_QUICK if options.quick else ROUNDS, options.only, show)


if __name__ == "__main__":
    main()
