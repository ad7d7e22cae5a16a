"""A step of the runtime beside the loop by hand that `benchmarks/` holds it against.

Here calls inside torch count as well, on both sides.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch

import lightgen_runtime
from contenders import by_hand, trainers
from contenders.workloads import (
    ACCUMULATED,
    BARE,
    CALLBACKS,
    GAN,
    MEANS,
    ONE,
    ROWS,
    TEN,
    TINY,
    Batches,
    Variant,
    Workload,
)
from lightgen_runtime.callbacks.progress import rich_progress
from step_overhead import calls_a_step, same_rows

ours = partial(trainers.run, lightgen_runtime)


@pytest.fixture(autouse=True)
def still_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rich_progress, "REFRESH_INTERVAL_S", 1000.0)


def added_calls(variant: Variant) -> float:
    return calls_a_step(ours, TINY, variant) - calls_a_step(by_hand.run, TINY, variant)


@pytest.mark.parametrize(
    ("variant", "budget"), [(BARE, 8), (ACCUMULATED, 8), (CALLBACKS, 12)]
)
def test_step_adds_few_calls_to_the_loop_by_hand(
    variant: Variant, budget: float
) -> None:
    assert added_calls(variant) <= budget


def test_each_further_log_adds_at_most_2_calls() -> None:
    one_mean = ONE._replace(epoch_means=True)
    assert added_calls(TEN) - added_calls(ONE) <= 9 * 2
    assert added_calls(MEANS) - added_calls(one_mean) <= 9 * 2


@pytest.mark.parametrize(
    ("workload", "variant"),
    [(workload, variant) for workload, variant in ROWS if workload in (TINY, GAN)],
    ids=lambda value: value.name,
)
def test_both_do_the_same_work(workload: Workload, variant: Variant) -> None:
    batches = Batches(workload.batch, 52)
    expected = by_hand.run(workload, variant, batches)
    found = ours(workload, variant, batches)
    assert torch.equal(found.weights, expected.weights)
    if not variant.callbacks:  # its report goes to a file
        assert same_rows(found, expected)
        assert bool(found.rows) == bool(variant.logged)
