"""A small module with dropout, its data, a quiet trainer, and the same loop by hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightgen_runtime import LightningModule, Trainer

DEVICE = torch.device("cuda", 0)
BATCH, BATCHES, WIDTH = 8, 12, 32

# Warnings of torch itself differ between its versions and cards.
on_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
    pytest.mark.filterwarnings("ignore::FutureWarning:torch"),
]
DTYPES = {
    "32-true": torch.float32,
    "64-true": torch.float64,
    "16-true": torch.float16,
    "bf16-true": torch.bfloat16,
    "16-mixed": torch.float16,
    "bf16-mixed": torch.bfloat16,
}


def make_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Dropout(0.3), nn.Linear(2 * WIDTH, 4)
    )


def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH * BATCHES, WIDTH, generator=generator)
    return TensorDataset(x, x[:, :4].argmax(1))


def loader(**kwargs: Any) -> DataLoader[Any]:
    return DataLoader(data(), batch_size=BATCH, **kwargs)


class Ready:
    """Batches that lie ready: reading them draws no random number."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self._batches = list(batches)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._batches)


class Classifier(LightningModule):
    """Logs in each step, with means over the epoch; evaluates with dropout too."""

    def __init__(self) -> None:
        super().__init__()
        self.net = make_net()
        self.seen: list[torch.dtype] = []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self.net(x), y)
        self.log("train_loss", loss, prog_bar=True, on_epoch=True)
        self.log("biggest", loss, on_step=False, on_epoch=True, reduce_fx="max")
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        x, y = batch
        self.log(
            "val_loss", F.cross_entropy(self.net(x) + torch.rand_like(x[:, :4]), y)
        )

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        logits: Tensor = self.net(batch[0])
        return logits

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=0.01, eps=1e-4)


def quiet(**flags: Any) -> Trainer:
    """Return a trainer on the first device that prints and writes nothing."""
    return Trainer(
        **{
            "accelerator": "gpu",
            "devices": 1,
            "max_epochs": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            **flags,
        }
    )


def autocast(precision: str) -> AbstractContextManager[Any]:
    if not precision.endswith("-mixed"):
        return nullcontext()
    return torch.autocast(DEVICE.type, DTYPES[precision], cache_enabled=False)


def trained_by_hand(precision: str, batches: Iterable[Any], seed: int) -> nn.Module:
    """Train a net as a person writes it; return it."""
    dtype = torch.float32 if precision.endswith("-mixed") else DTYPES[precision]
    net = make_net().to(DEVICE, dtype)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01, eps=1e-4)
    scaler = torch.amp.GradScaler(DEVICE.type, enabled=precision == "16-mixed")
    torch.manual_seed(seed)
    for x, y in batches:
        x, y = x.to(DEVICE, dtype), y.to(DEVICE)
        with autocast(precision):
            loss = F.cross_entropy(net(x), y)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    return net


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """Compare weights bit for bit."""
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name
