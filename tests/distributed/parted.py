"""A program in two processes, one of which fails; the other one has to save together."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

from lightgen_runtime import Trainer
from lightgen_runtime.callbacks import OnExceptionCheckpoint
from lightgen_runtime.demos.boring_classes import BoringModel
from lightgen_runtime.io.distributed_checkpoint_io import DistributedCheckpointIO
from lightgen_runtime.strategies import DDPStrategy


class Failing(BoringModel):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if batch_idx == 1 and self.global_rank == 1:
            raise ZeroDivisionError
        return super().training_step(batch[0], batch_idx)


if __name__ == "__main__":
    Trainer(
        accelerator="cpu",
        devices=2,
        strategy=DDPStrategy(timeout=timedelta(seconds=600)),
        max_epochs=1,
        limit_val_batches=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[OnExceptionCheckpoint("left")],
        plugins=[DistributedCheckpointIO()],
    ).fit(Failing(), DataLoader(TensorDataset(torch.zeros(16, 32)), 2))
