"""Where several processes are meant to do something else than Lightning's.

Each test is named in a row of docs/compat.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from distributed import OURS, REFERENCE, found_by
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

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


@pytest.mark.filterwarnings("ignore")
def test_resume_inside_an_epoch_by_other_processes(folder: Path) -> None:
    """Two processes have read a half of it; one goes on."""
    assert sorted(_read_in_all(REFERENCE, pl, folder)) != list(range(16))
    assert sorted(_read_in_all(OURS, L, folder)) == list(range(16))


def _read_in_all(package: str, namespace: Any, folder: Path) -> list[int]:
    class Net(namespace.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 1)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            read.extend(batch[1].tolist())
            return self.second(torch.tanh(self.first(batch[0]))).mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)

    read = [sample for found in found_by(package, folder) for sample in found["saved"]]
    trainer = namespace.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = TensorDataset(torch.ones(16, 4), torch.arange(16))
    loader = DataLoader(data, 2, shuffle=True)
    trainer.fit(Net(), loader, ckpt_path=folder / package / "inside.ckpt")
    return read


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


def test_processes_that_tell_why_training_stops(folder: Path) -> None:
    theirs, ours = found_by(REFERENCE, folder), found_by(OURS, folder)
    assert [found["told"] for found in theirs] == [1, 1]
    assert [found["told"] for found in ours] == [1, 0]


def test_training_data_that_end_earlier_in_one_process(folder: Path) -> None:
    theirs, ours = found_by(REFERENCE, folder), found_by(OURS, folder)
    # Process 1 waits for the gradients of process 0 until the timeout.
    assert isinstance(theirs[1]["uneven"], str)
    assert [found["uneven"] for found in ours] == [4, 4]


def test_order_of_training_samples_that_are_not_shuffled(folder: Path) -> None:
    theirs, ours = found_by(REFERENCE, folder), found_by(OURS, folder)
    seen = [found["telling"]["seen"] for found in ours]
    assert seen == [[0, 2, 4, 6, 8, 10], [1, 3, 5, 7, 9, 11]]
    first, second = (found["telling"]["seen"] for found in theirs)
    assert sorted([*first, *second]) == list(range(12))
    assert first != sorted(first)  # shuffled all the same


def test_step_values_between_two_reports(folder: Path) -> None:
    theirs, ours = found_by(REFERENCE, folder), found_by(OURS, folder)
    for rank, (their, our) in enumerate(zip(theirs, ours, strict=True)):
        assert their["telling"]["step_values"] == [0.5, 1.5, 2.5]
        assert our["telling"]["step_values"] == [rank, rank + 1, rank + 2]
        # At the end of an epoch, where schedulers and callbacks read it:
        assert their["telling"]["last_value"] == our["telling"]["last_value"] == 2.5


def test_trainer_model_in_several_processes(folder: Path) -> None:
    theirs, ours = found_by(REFERENCE, folder), found_by(OURS, folder)
    assert [found["telling"]["is_model"] for found in theirs] == [False, False]
    assert [found["telling"]["is_model"] for found in ours] == [True, True]


def test_gathering_from_an_uneven_evaluation(folder: Path) -> None:
    theirs, ours = found_by(REFERENCE, folder), found_by(OURS, folder)
    for found in theirs:
        assert found["telling"]["gathered"] == [[0, 2, 4], [1, 3, 0]]
    for found in ours:
        told = found["telling"]["gathered"]
        assert told.startswith("MisconfigurationException")
        assert "process 0: [(3,)]; process 1: [(2,)]" in told
        assert "gather_in_order" in told


def test_kinds_of_gathered_numbers(folder: Path) -> None:
    [theirs, _], [ours, _] = found_by(REFERENCE, folder), found_by(OURS, folder)
    assert theirs["telling"]["kinds"] == ["torch.int32", "torch.float32", "torch.uint8"]
    assert ours["telling"]["kinds"] == ["torch.int64", "torch.float32", "torch.bool"]
