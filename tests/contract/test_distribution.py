"""Two processes of the runtime do what two of Lightning's do."""

from __future__ import annotations

from pathlib import Path

import pytest
from distributed import OURS, REFERENCE, found_by

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


@pytest.mark.parametrize("case", ["fit", "accumulated", "gan"])
def test_same_samples_same_weights(case: str, folder: Path) -> None:
    """Shuffled data are dealt out in the same order, and the weights are the same."""
    for theirs, ours in zip(
        found_by(REFERENCE, folder), found_by(OURS, folder), strict=True
    ):
        for key in ("seen", "steps", "batches", "sampler", "world"):
            assert ours[case][key] == theirs[case][key], key
        assert ours[case]["weights"] == pytest.approx(theirs[case]["weights"], abs=1e-6)
        assert ours[case]["metrics"] == pytest.approx(theirs[case]["metrics"], abs=1e-5)
