"""`BasePredictionWriter`: what is written when, and which samples it belongs to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_runs import Small, numbers, quiet
from torch.utils.data import DataLoader

from lightgen_runtime.callbacks import BasePredictionWriter
from lightgen_runtime.utilities.exceptions import MisconfigurationException


class Writer(BasePredictionWriter):
    def __init__(self, write_interval: str) -> None:
        super().__init__(write_interval)
        self.batches: list[Any] = []
        self.epochs: list[Any] = []

    def write_on_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        prediction: Any,
        batch_indices: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        self.batches.append((prediction, batch_indices))

    def write_on_epoch_end(
        self, trainer: Any, pl_module: Any, predictions: Any, batch_indices: Any
    ) -> None:
        self.epochs.append((predictions, batch_indices))


@pytest.mark.parametrize("workers", [0, 2])
def test_predictions_of_a_shuffled_loader_find_their_samples(workers: int) -> None:
    module, writer = Small(), Writer("batch_and_epoch")
    shuffled = DataLoader(
        numbers(7), batch_size=2, shuffle=True, num_workers=workers  # type: ignore[arg-type]
    )
    returned = quiet(callbacks=[writer]).predict(
        module, shuffled, return_predictions=False
    )
    assert returned is None
    expected = module(numbers(7)).detach()
    for prediction, indices in writer.batches:
        torch.testing.assert_close(prediction, expected[indices])
    [(predictions, [indices])] = writer.epochs
    assert sorted(i for batch in indices for i in batch) == list(range(7))
    torch.testing.assert_close(
        torch.cat(predictions), expected[[i for batch in indices for i in batch]]
    )


def test_users_loader_is_left_as_it_was() -> None:
    users = DataLoader(numbers(4), batch_size=2)  # type: ignore[arg-type]
    sampler = users.batch_sampler
    quiet(callbacks=[Writer("batch")]).predict(Small(), users)
    assert users.batch_sampler is sampler


def test_method_that_is_missing_is_named() -> None:
    writer = BasePredictionWriter("epoch")
    with pytest.raises(NotImplementedError, match="write_on_epoch_end"):
        quiet(callbacks=[writer]).predict(Small(), DataLoader(numbers(4)))  # type: ignore[arg-type]


def test_other_interval_is_refused() -> None:
    with pytest.raises(MisconfigurationException, match="'batch_and_epoch'"):
        BasePredictionWriter("step")
