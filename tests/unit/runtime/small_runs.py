"""A small module, fixed data, a quiet trainer, and what an error says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightgen_runtime import LightningModule, Trainer
from lightgen_runtime.utilities.exceptions import LightgenRuntimeError


def numbers(rows: int = 8) -> Tensor:
    """Return fixed rows of 4 numbers."""
    return torch.randn(rows, 4, generator=torch.Generator().manual_seed(0))


def loader(rows: int = 8, batch_size: int = 2, **kwargs: Any) -> DataLoader[Any]:
    """Return a loader of fixed rows of 4 numbers."""
    return DataLoader(numbers(rows), batch_size=batch_size, **kwargs)


class Stream(torch.utils.data.IterableDataset[Tensor]):
    """The same rows without a length."""

    def __init__(self, rows: int = 8) -> None:
        self.rows = rows

    def __iter__(self) -> Any:
        return iter(numbers(self.rows))


class Small(LightningModule):
    """Pulls the outputs of `Linear(4, 1)` towards zero."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.layer(x)
        return output

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self(batch).pow(2).mean()

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("val_loss", self(batch).pow(2).mean())

    def test_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("test_loss", self(batch).pow(2).mean())

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        return self(batch)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def variant(**members: Any) -> Small:
    """Return a `Small` whose class has these methods or attributes instead."""
    made: Small = type("Variant", (Small,), members)()
    return made


def quiet(**flags: Any) -> Trainer:
    """Return a trainer of one epoch that prints and writes nothing."""
    return Trainer(
        **{
            "accelerator": "cpu",
            "max_epochs": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            **flags,
        }
    )


def fitted(module: LightningModule, **flags: Any) -> Trainer:
    """Fit `module` on 4 batches with 2 to validate, and return the trainer."""
    trainer = quiet(**flags)
    trainer.fit(module, loader(), loader(4))
    return trainer


def message_of(action: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """Return what an action that has to fail says."""
    with pytest.raises(LightgenRuntimeError) as caught:
        action(*args, **kwargs)
    return str(caught.value)


def assert_says(message: str, *parts: str) -> None:
    """Compare a message with what it has to contain."""
    for part in parts:
        assert part in message, message
