"""The smallest complete module, dataset and datamodule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

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


class RandomDictDataset(RandomDataset):
    """Normally distributed vectors under "a", and the same plus 2 under "b"."""

    def __getitem__(self, index: int) -> dict[str, Tensor]:  # type: ignore[override]
        """Return two vectors of shape (size,)."""
        return {"a": self.data[index], "b": self.data[index] + 2}


class RandomIterableDataset(IterableDataset[Tensor]):
    """Normally distributed vectors, drawn anew each time; without a length.

    Args:
        size: Elements of a vector.
        count: Number of vectors.
    """

    def __init__(self, size: int, count: int) -> None:
        self.size = size
        self.count = count

    def __iter__(self) -> Iterator[Tensor]:
        """Yield vectors of shape (size,)."""
        for _ in range(self.count):
            yield torch.randn(self.size)


class RandomIterableDatasetWithLen(RandomIterableDataset):
    """The same with a length."""

    def __len__(self) -> int:
        """Return the number of vectors."""
        return self.count


class BoringModel(LightningModule):
    """One linear layer pulling its outputs towards one."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, 32) to (batch, 2)."""
        output: Tensor = self.layer(x)
        return output

    def loss(self, preds: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the mean squared distance to the labels, or else to one."""
        labels = torch.ones_like(preds) if labels is None else labels
        return nn.functional.mse_loss(preds, labels)

    def step(self, batch: Any) -> Tensor:
        """Return the loss of a batch."""
        return self.loss(self(batch))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """Return the loss under its key."""
        return {"loss": self.step(batch)}

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        """Return the loss under a key of its own."""
        return {"x": self.step(batch)}

    def test_step(self, batch: Any, batch_idx: int) -> Any:
        """Return the loss under a key of its own."""
        return {"y": self.step(batch)}

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


class ManualOptimBoringModel(BoringModel):
    """The same model, stepping its optimizer itself."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """Step, and return the loss."""
        optimizer: Any = self.optimizers()
        loss = self.step(batch)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return loss


class DemoModel(LightningModule):
    """One linear layer whose outputs are to become small.

    Args:
        out_dim: Outputs.
        learning_rate: Of Adam.
    """

    def __init__(self, out_dim: int = 10, learning_rate: float = 0.02) -> None:
        super().__init__()
        self.l1 = nn.Linear(32, out_dim)
        self.learning_rate = learning_rate

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, ...) of 32 elements each to (batch, out_dim)."""
        return torch.relu(self.l1(x.flatten(1)))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Return the sum of the outputs."""
        return self(batch).sum()  # type: ignore[no-any-return]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)


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
