"""Interrupting a fit at any moment and comparing what its resumption ends with."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import loader, quiet
from torch.utils.data import Dataset

from lightgen_runtime import Callback, LightningModule, Trainer
from lightgen_runtime.callbacks import Checkpoint


class Noisy(Dataset[torch.Tensor]):
    """Rows whose augmentation draws random numbers when they are read."""

    def __init__(self, rows: int = 14) -> None:
        self.data = torch.randn(rows, 4, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.data[index] + 0.1 * torch.randn(4) + random.random()


class Model(LightningModule):
    """Dropout, a plateau on a validation metric, epoch sums: all that can go wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1)
        )

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.net(batch).pow(2).mean()
        self.log("loss", loss, on_step=True, on_epoch=True)
        self.log("biggest", loss, on_step=False, on_epoch=True, reduce_fx="max")
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        loss = self.net(batch).pow(2).mean() + random.random()
        self.log("val_loss", loss)
        self.log("val_each", loss, on_step=True, on_epoch=False)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
        per_step = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)
        return [optimizer], [
            {"scheduler": plateau, "monitor": "val_loss"},
            {"scheduler": per_step, "interval": "step"},
        ]


class Manual(Model):
    """Two optimizers by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        for optimizer in self.optimizers():  # type: ignore[union-attr]
            loss = self.net(batch).pow(2).mean()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            self.log("loss", loss, on_step=True, on_epoch=True)

    def configure_optimizers(self) -> Any:
        first = torch.optim.Adam(self.net[0].parameters(), lr=0.01)
        return [first, torch.optim.SGD(self.net[2].parameters(), lr=0.01)]


class Interrupt(Checkpoint):
    """Saves and stops at one occurrence of a hook."""

    def __init__(self, hook: str, occurrence: int, path: Path) -> None:
        self.remaining = occurrence
        self.path = path
        setattr(self, hook, self.save)

    def save(self, trainer: Any, *args: Any) -> None:
        if not trainer.sanity_checking:
            self.remaining -= 1
            if self.remaining == 0:
                trainer.save_checkpoint(self.path)
                raise KeyboardInterrupt


def assert_resumes(
    make_module: Callable[[], LightningModule],
    make_callback: Callable[[], Callback],
    path: Path,
    moments: list[tuple[str, int]],
    make_plugins: Callable[[], Any] = lambda: None,
    **flags: Any,
) -> None:
    """Fit as a whole and in two parts; weights, optimizers and state must be equal."""

    def fit(extra: list[Callback], resume: Path | None = None) -> Trainer:
        callbacks = [make_callback(), *extra]
        flags["plugins"] = make_plugins()
        trainer = quiet(callbacks=callbacks, enable_checkpointing=bool(extra), **flags)
        trainer.fit(make_module(), loader(12), loader(4), ckpt_path=resume)
        return trainer

    whole = _state(fit([]))
    for hook, occurrence in moments:
        with pytest.raises(KeyboardInterrupt):
            fit([Interrupt(hook, occurrence, path)])
        assert_equal(_state(fit([], path)), whole, f"{hook} {occurrence}")


def _state(trainer: Trainer) -> dict[str, Any]:
    return {
        "weights": trainer.lightning_module.state_dict(),
        "optimizers": [o.state_dict() for o in trainer.optimizers],
        "schedulers": [c.scheduler.state_dict() for c in trainer.lr_scheduler_configs],
        "callback": trainer.callbacks[0].state_dict(),
        "precision": trainer.precision_plugin.state_dict(),
        "progress": (trainer.current_epoch, trainer.global_step),
    }


def assert_equal(ours: Any, theirs: Any, where: str) -> None:
    """Compare nested data, tensors bit for bit."""
    if isinstance(theirs, torch.Tensor):
        assert torch.equal(ours, theirs), where
    elif isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), where
        for key in theirs:
            assert_equal(ours[key], theirs[key], f"{where}.{key}")
    elif isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs), where
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            assert_equal(one, other, f"{where}[{number}]")
    else:
        assert ours == theirs, where
