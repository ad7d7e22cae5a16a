"""A model with blocks, for trials of one model over several processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader
from trial_net import numbered, quiet

import lightgen_runtime as L

CASES: dict[str, Callable[[int], Any]] = {}


def sharded_case(function: Callable[[int], Any]) -> Callable[[int], Any]:
    CASES[function.__name__] = function
    return function


class Block(nn.Module):
    """A layer of a residual network; rows do not go evenly into two."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.layer = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.layer(self.norm(x)))


class Deep(L.LightningModule):
    """Blocks with something before and after them, and a parameter of its own."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.before, self.after = nn.Linear(4, 7), nn.Linear(7, 1)
        self.blocks = nn.ModuleList(Block(7) for _ in range(3))
        self.shift = nn.Parameter(torch.zeros(3))
        self.losses: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        for block in self.blocks:
            x = block(x)
        return self.after(x).squeeze(1) + self.shift.sum()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = (self(batch[0]) - batch[1] / 10).pow(2).mean()
        self.losses.append(loss.item())
        self.log("loss", loss, on_step=True, on_epoch=True, sync_dist=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val", self(batch[0]).mean(), sync_dist=True)
        self.log("seen", float(len(batch[0])), reduce_fx="sum")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("tested", self(batch[0]).mean())

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        return batch[1], self(batch[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=0.01)


def whole(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def weights(module: nn.Module) -> list[float]:
    return torch.cat([whole(p).float().flatten() for p in module.parameters()]).tolist()


def is_spread(module: nn.Module) -> dict[str, bool]:
    return {n: isinstance(p, DTensor) for n, p in module.named_parameters()}


def data(world: int, count: int = 24, batch: int = 12) -> Any:
    """Global batches of the same samples, however many processes share them."""
    return DataLoader(numbered(count), batch // world)


def fitted(
    world: int, module: L.LightningModule, strategy: Any = "fsdp", **flags: Any
) -> Any:
    """Fit on the same global batches, and return what came of it."""
    strategy = strategy if world > 1 else "auto"
    trainer = quiet(world, **{"strategy": strategy, "max_epochs": 3, **flags})
    trainer.fit(module, data(world))
    return {
        "weights": weights(module),
        "spread": is_spread(module),
        "steps": trainer.global_step,
        "loss": float(trainer.callback_metrics["loss"]),
    }
