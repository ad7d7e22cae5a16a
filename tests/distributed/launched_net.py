"""One small training, for programs that differ only in who starts their processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader
from trial_net import Net, numbered, quiet, weights

import lightgen_runtime as L


class Told(Net):
    """Says what it has seen, in every stage."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("mean", batch[1].float().mean())

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("largest", batch[1].float().max(), reduce_fx="max")

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        return batch[1]


def loader() -> Any:
    return DataLoader(numbered(12), 2)


def trained(folder: Path, **flags: Any) -> L.Trainer:
    """Train in a process that somebody has started, and note what came of it there."""
    trainer = quiet(2, **{"devices": "auto", "strategy": "auto", **flags})
    model = Told()
    trainer.fit(model, loader())
    found = {
        "world": trainer.world_size,
        "environment": type(trainer.strategy.cluster_environment).__name__,
        "weights": weights(model),
        "loss": trainer.callback_metrics["loss"].item(),
        "seen": model.seen,
    }
    (folder / f"{trainer.global_rank}.json").write_text(json.dumps(found))
    return trainer
