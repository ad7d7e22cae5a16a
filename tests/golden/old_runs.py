"""The runs whose checkpoints are kept, and what writes those of a new version.

    python tests/golden/old_runs.py FOLDER

writes each run's checkpoint and the weights it ended with. What a released version has
written is never written again.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import lightgen_runtime as L
from lightgen_runtime.callbacks import EarlyStopping


class Automatic(L.LightningModule):
    def __init__(self, lr: float = 0.05) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1)
        )

    def loss(self, batch: list[Tensor]) -> Tensor:
        return (self.net(batch[0]) - batch[1]).square().mean()

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.log("train_loss", loss, on_epoch=True)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.hparams.lr)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


class Manual(Automatic):
    def __init__(self, lr: float = 0.05) -> None:
        super().__init__(lr)
        self.automatic_optimization = False

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        chosen = self.optimizers()[batch_idx % 2]
        chosen.zero_grad()
        self.manual_backward(self.loss(batch))
        chosen.step()

    def configure_optimizers(self) -> Any:
        first, _, last = self.net
        return [
            torch.optim.SGD(first.parameters(), lr=0.1, momentum=0.9),
            torch.optim.AdamW(last.parameters(), lr=self.hparams.lr),
        ]


# By name: the module, flags of the trainer, and the batch after which it is saved.
RUNS: dict[str, tuple[type[Automatic], dict[str, Any], int]] = {
    "automatic": (Automatic, {}, 5),
    "manual": (Manual, {}, 5),
    "mid_epoch": (Automatic, {"accumulate_grad_batches": 2}, 8),
}


def loader(rows: int, shuffle: bool) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 4, generator=generator)
    return DataLoader(TensorDataset(x, x.sum(1, True)), batch_size=2, shuffle=shuffle)


class SaveAfter(L.Callback):
    def __init__(self, batches: int, path: Path) -> None:
        self.batches, self.path = batches, path

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.progress.total_batches == self.batches:
            trainer.save_checkpoint(self.path)


def run(
    name: str, ckpt_path: Path | None = None, callbacks: tuple[L.Callback, ...] = ()
) -> Automatic:
    """Train the run of that name to its end; return its module."""
    cls, flags, _ = RUNS[name]
    L.seed_everything(1, verbose=False)
    module = cls()
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[EarlyStopping("val_loss", patience=9), *callbacks],
        **flags,
    )
    trainer.fit(module, loader(10, True), loader(4, False), ckpt_path=ckpt_path)
    return module


def write_all(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, (_, _, batches) in RUNS.items():
        save = SaveAfter(batches, folder / f"{name}.ckpt")
        weights = run(name, callbacks=(save,)).state_dict()
        torch.save(weights, folder / f"{name}.end.pt")


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
