"""A short fit that saves, ranks and removes checkpoints at each epoch's end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from lightgen_runtime import LightningModule, Trainer
from lightgen_runtime.callbacks import ModelCheckpoint

SCORES = (3.0, 1.0, 2.0, 0.5)
# `make soak` strikes at every step.
STRIDE = 1 if os.environ.get("LIGHTGEN_SOAK") else 13


class Scored(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.layer(batch).square().mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("score", SCORES[self.trainer.current_epoch])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder: Path, ckpt_path: str | None = None) -> ModelCheckpoint:
    """Train for four epochs of two batches and keep the best two and the last."""
    callback = ModelCheckpoint(folder, monitor="score", save_top_k=2, save_last=True)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=4,
        logger=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback],
    )
    data = DataLoader(torch.ones(4, 2), batch_size=2)
    trainer.fit(Scored(), data, data, ckpt_path=ckpt_path)
    return callback
