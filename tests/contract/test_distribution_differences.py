"""Where several processes are meant to do something else than Lightning's.

Each test is named in a row of docs/compat.md.
"""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
import pytest
from distributed import OURS, REFERENCE, found_by

import lightgen_runtime as L
from lightgen_runtime.strategies import FSDPStrategy, ModelParallelStrategy

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


def test_every_sample_is_evaluated_once(folder: Path) -> None:
    [theirs, _], [ours, _] = found_by(REFERENCE, folder), found_by(OURS, folder)
    # Samples 0 to 4 on two processes.
    assert theirs["evaluation"]["metrics"]["count"] == 6
    assert ours["evaluation"]["metrics"]["count"] == 5
    assert theirs["evaluation"]["metrics"]["mean"] == pytest.approx(5 / 3)
    assert ours["evaluation"]["metrics"]["mean"] == 2.0


def test_epoch_values_without_sync_dist(folder: Path) -> None:
    theirs, ours = found_by(REFERENCE, folder), found_by(OURS, folder)
    local = [found["evaluation"]["metrics"]["local"] for found in theirs]
    assert local == [0.0, 1.0]
    # 3 samples in process 0, 2 in process 1.
    assert [f["evaluation"]["metrics"]["local"] for f in ours] == [0.4, 0.4]


def test_predictions_are_dealt_out_by_batches(folder: Path) -> None:
    theirs, ours = found_by(REFERENCE, folder), found_by(OURS, folder)
    assert theirs[0]["evaluation"]["predicted"] == [[0, 2], [4, 6]]
    assert ours[0]["evaluation"]["predicted"] == [[0, 1], [4, 5]]
    assert ours[1]["evaluation"]["predicted"] == [[2, 3], [6, 7]]


def test_fsdp_is_fully_shard() -> None:
    """That it shards is looked at in tests/distributed."""
    with pytest.raises(ValueError, match="requires a GPU accelerator"):
        pl.Trainer(accelerator="cpu", strategy="fsdp")
    strategy = L.Trainer(accelerator="cpu", strategy="fsdp").strategy
    assert isinstance(strategy, FSDPStrategy)


def test_checkpoint_of_a_mesh_is_one_file() -> None:
    assert pl.strategies.ModelParallelStrategy()._save_distributed_checkpoint is True
    assert ModelParallelStrategy().saves_parts is False
    assert ModelParallelStrategy(save_distributed_checkpoint=True).saves_parts is True


def test_several_optimizers_by_hand(folder: Path) -> None:
    [theirs, _], [ours, _] = found_by(REFERENCE, folder), found_by(OURS, folder)
    assert "RuntimeError" in theirs["gan_by_default"]
    assert ours["gan_by_default"] is None


def test_training_data_that_end_earlier_in_one_process(folder: Path) -> None:
    theirs, ours = found_by(REFERENCE, folder), found_by(OURS, folder)
    # Process 1 waits for the gradients of process 0 until the timeout.
    assert isinstance(theirs[1]["uneven"], str)
    assert [found["uneven"] for found in ours] == [4, 4]
