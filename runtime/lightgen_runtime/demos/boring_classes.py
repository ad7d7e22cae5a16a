"""The smallest complete module, dataset and datamodule."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lightgen_runtime.core.datamodule import LightningDataModule
from lightgen_runtime.core.module import LightningModule


class RandomDataset(Dataset[Tensor]):
    """Normally distributed vectors.

    Args:
        size: Elements of a vector.
        length: Number of vectors.
    """

    def __init__(self, size: int, length: int) -> None:
        self.data = torch.randn(length, size)

    def __getitem__(self, index: int) -> Tensor:
        """Return one vector of shape (size,)."""
        return self.data[index]

    def __len__(self) -> int:
        """Return the number of vectors."""
        return len(self.data)


class BoringModel(LightningModule):
    """One linear layer pulling its outputs towards one."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, 32) to (batch, 2)."""
        output: Tensor = self.layer(x)
        return output

    def loss(self, predictions: Tensor) -> Tensor:
        """Return the mean squared distance to one."""
        return nn.functional.mse_loss(predictions, torch.ones_like(predictions))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """Return the loss under its key."""
        return {"loss": self.loss(self(batch))}

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        """Return the loss under a key of its own."""
        return {"x": self.loss(self(batch))}

    def test_step(self, batch: Any, batch_idx: int) -> Any:
        """Return the loss under a key of its own."""
        return {"y": self.loss(self(batch))}

    def configure_optimizers(self) -> Any:
        """Return SGD with a step schedule."""
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, step_size=1)]

    def train_dataloader(self) -> DataLoader[Tensor]:
        """Return 64 batches of one sample."""
        return DataLoader(RandomDataset(32, 64))

    def val_dataloader(self) -> DataLoader[Tensor]:
        """Return 64 batches of one sample."""
        return DataLoader(RandomDataset(32, 64))

    def test_dataloader(self) -> DataLoader[Tensor]:
        """Return 64 batches of one sample."""
        return DataLoader(RandomDataset(32, 64))

    def predict_dataloader(self) -> DataLoader[Tensor]:
        """Return 64 batches of one sample."""
        return DataLoader(RandomDataset(32, 64))


class BoringDataModule(LightningDataModule):
    """Four loaders of random vectors."""

    def train_dataloader(self) -> DataLoader[Tensor]:
        """Return 64 batches of one sample."""
        return DataLoader(RandomDataset(32, 64))

    def val_dataloader(self) -> DataLoader[Tensor]:
        """Return 64 batches of one sample."""
        return DataLoader(RandomDataset(32, 64))

    def test_dataloader(self) -> DataLoader[Tensor]:
        """Return 64 batches of one sample."""
        return DataLoader(RandomDataset(32, 64))

    def predict_dataloader(self) -> DataLoader[Tensor]:
        """Return 64 batches of one sample."""
        return DataLoader(RandomDataset(32, 64))
