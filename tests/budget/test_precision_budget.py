"""What precisions cost in a step; `32-true` costs nothing (test_step_budget.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_step_budget import Net, count_calls, per_step
from torch.amp import GradScaler

from lightgen_runtime.plugins import MixedPrecision

PRECISIONS = ["bf16-mixed", "bf16-true", "64-true"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_step_in_another_precision_makes_at_most_12_calls(
    precision: str, tmp_path: Path
) -> None:
    calls = count_calls(Net(), tmp_path, precision=precision)
    assert 0 < per_step(calls) <= 12, calls


def test_scaled_step_makes_at_most_20_calls(tmp_path: Path) -> None:
    scaler = GradScaler("cpu", init_scale=2.0**4)
    plugins: Any = MixedPrecision("16-mixed", "cpu", scaler=scaler)
    calls = count_calls(Net(), tmp_path, plugins=plugins)
    assert 0 < per_step(calls) <= 20, calls


def test_scaled_step_constructs_no_object_of_ours(tmp_path: Path) -> None:
    scaler = GradScaler("cpu", init_scale=2.0**4)
    plugins: Any = MixedPrecision("16-mixed", "cpu", scaler=scaler)
    calls = count_calls(Net(), tmp_path, plugins=plugins)
    assert not [name for name in calls if name.endswith(":__init__")]
