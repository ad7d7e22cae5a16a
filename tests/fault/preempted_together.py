"""A program in two processes, one of which gets a signal; writes what each has seen."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightgen_runtime import LightningModule, Trainer, seed_everything


class Net(LightningModule):
    def __init__(self, signalled: bool) -> None:
        super().__init__()
        self.signalled = signalled
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 1))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        at = self.trainer.fit_loop.total_batch_idx
        if self.signalled and at == 5 and self.global_rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        loss: Tensor = self.net(batch[0]).pow(2).mean()
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", self.net(batch[0]).pow(2).mean())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def fit(folder: str, signalled: bool, ckpt_path: str | None = None) -> tuple[Any, Any]:
    """Train; return the trainer and what ended the fit."""
    seed_everything(1, workers=True, verbose=False)
    rows = TensorDataset(torch.randn(64, 4))
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        max_epochs=6,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    loaders = DataLoader(rows, 4, shuffle=True), DataLoader(rows, 7)
    try:
        trainer.fit(Net(signalled), *loaders, ckpt_path=ckpt_path)
    except SystemExit as stop:
        return trainer, stop
    return trainer, None


def main() -> None:
    fit("first", signalled=False)  # which seeds once more, when the processes meet
    whole, _ = fit("whole", signalled=False)
    stopped, error = fit("stopped", signalled=True)
    files = sorted(Path("stopped/checkpoints").glob("interrupted*"))
    resumed, _ = fit("stopped", signalled=False, ckpt_path=str(files[0]))
    seen = {
        "batches": stopped.progress.total_batches,
        "code": error.code,
        "files": [file.name for file in files],
        "left": [f.name for f in Path("stopped/checkpoints").glob("interrupted*")],
        "equal": all(
            torch.equal(one, other)
            for one, other in zip(
                resumed.lightning_module.parameters(),
                whole.lightning_module.parameters(),
                strict=True,
            )
        ),
    }
    Path(f"{resumed.global_rank}.json").write_text(json.dumps(seen))
    _, error = fit("again", signalled=True)
    raise error  # as if nobody had caught it


if __name__ == "__main__":
    main()
