"""What the tuner does otherwise on purpose, on both packages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_tuning import BOTH, sizes

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(
    ("capacity", "arguments", "theirs", "ours"),
    [
        (50, {"max_val": 64}, 64, 32),  # one that is returned untried
        (1000, {"max_val": 100}, 128, 100),  # one beyond the limit
        (10, {"init_val": 64}, 64, 8),  # one that has just failed
    ],
)
def test_scaling_returns_only_sizes_that_fit(
    capacity: int,
    arguments: dict[str, Any],
    theirs: int,
    ours: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    found = [sizes(namespace, capacity, 512, "fit", arguments)[0] for namespace in BOTH]
    assert found == [theirs, ours]
