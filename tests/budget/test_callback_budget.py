"""What the callbacks may cost in a step at which nothing of theirs is due."""

from __future__ import annotations

import inspect
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from test_step_budget import Net, count_calls, per_step

from lightgen_runtime import Callback
from lightgen_runtime.callbacks import (
    BackboneFinetuning,
    DeviceStatsMonitor,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    LearningRateMonitor,
    StochasticWeightAveraging,
    ThroughputMonitor,
    Timer,
    TQDMProgressBar,
    WeightAveraging,
)
from lightgen_runtime.callbacks.progress import tqdm_progress


class WithBackbone(Net):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = torch.nn.Linear(4, 4)


class Never(WeightAveraging):
    def should_update(
        self, step_idx: int | None = None, epoch_idx: int | None = None
    ) -> bool:
        return False


# Calls of its own that each makes in a step.
BUDGETS: dict[str, tuple[Any, float]] = {
    "learning rates": (LearningRateMonitor, 1),
    "timer": (lambda: Timer(timedelta(hours=1)), 1),
    "throughput": (lambda: ThroughputMonitor(lambda batch: 8), 1),
    "device": (DeviceStatsMonitor, 2),  # two hooks
    "accumulation": (lambda: GradientAccumulationScheduler({0: 1}), 0),
    "late average": (lambda: StochasticWeightAveraging(0.1), 0),
    "finetuning": (lambda: BackboneFinetuning(9), 0),
    "no average": (Never, 1),
    # It asks a method that users override whether to average.
    "moving average": (lambda: EMAWeightAveraging(update_every_n_steps=10_000), 2),
}


def own_calls(callback: Callback, calls: Counter[str]) -> float:
    """Return the calls a step in the files of a callback's classes."""
    files = {Path(inspect.getfile(kind)).name for kind in type(callback).__mro__[:-1]}
    own = {name: n for name, n in calls.items() if name.partition(":")[0] in files}
    return per_step(Counter(own))


@pytest.mark.parametrize("name", BUDGETS)
def test_callback_makes_few_calls_in_a_step(name: str, tmp_path: Path) -> None:
    make, allowed = BUDGETS[name]
    callback: Callback = make()
    calls = count_calls(WithBackbone(), tmp_path, callbacks=[callback], logger=True)
    assert own_calls(callback, calls) == allowed, calls
    assert not [found for found in calls if found.endswith(":__init__")]


def test_tqdm_bar_makes_one_call_in_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tqdm_progress, "REFRESH_INTERVAL_S", 1000.0)
    bar = TQDMProgressBar()
    calls = count_calls(Net(), tmp_path, callbacks=[bar], enable_progress_bar=True)
    assert own_calls(bar, calls) == 1, calls
