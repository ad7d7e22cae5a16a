"""What all cases have in common: a small module, its data and its trainer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import lightgen_runtime as L

CASES: dict[str, Callable[[int], Any]] = {}


def case(function: Callable[[int], Any]) -> Callable[[int], Any]:
    CASES[function.__name__] = function
    return function


def quiet(world: int, **flags: Any) -> L.Trainer:
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": world,
        "strategy": "ddp" if world > 1 else "auto",
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return L.Trainer(**{**defaults, **flags})


def numbered(count: int) -> TensorDataset:
    """Samples that tell their number."""
    features = torch.randn(count, 4, generator=torch.Generator().manual_seed(1))
    return TensorDataset(features, torch.arange(count))


def digest(module: nn.Module) -> str:
    content = b"".join(
        t.detach().numpy().tobytes() for t in module.state_dict().values()
    )
    return hashlib.sha256(content).hexdigest()[:12]


class Net(L.LightningModule):
    """Two layers, from the same weights in every process count."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 1)
        self.seen: list[int] = []
        self.digests: list[str] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.seen += batch[1].tolist()
        return (self(batch[0]).squeeze(1) - batch[1] / 10).pow(2).mean()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.digests.append(digest(self))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def weights(module: nn.Module) -> list[float]:
    return torch.cat([p.detach().flatten() for p in module.parameters()]).tolist()
