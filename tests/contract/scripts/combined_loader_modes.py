"""The same model trained with `CombinedLoader` in each of its training modes."""

import json

import lightning as L
import torch
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.utils.data import DataLoader


class TwoViews(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.seen = []

    def training_step(self, batch, batch_idx):
        views = [view for view in batch if view is not None]
        self.seen.append([round(view.sum().item(), 4) for view in views])
        loss = sum(self.layer(view).pow(2).mean() for view in views)
        self.log("loss", loss, batch_size=4)
        return loss

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("val", self.layer(batch).mean(), batch_size=len(batch))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


def train(mode):
    L.seed_everything(13)
    short = DataLoader(torch.randn(12, 3), batch_size=4, shuffle=True)
    long = DataLoader(torch.randn(20, 3), batch_size=4)
    model = TwoViews()
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    validation = CombinedLoader([short, long], "sequential")
    trainer.fit(model, CombinedLoader([short, long], mode=mode), validation)
    return {
        "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
        "seen": model.seen,
        "batches": trainer.num_training_batches,
        "val_batches": trainer.num_val_batches,
        "weights": sum(p.double().sum().item() for p in model.parameters()),
        "global_step": trainer.global_step,
    }


if __name__ == "__main__":
    results = {mode: train(mode) for mode in ("min_size", "max_size_cycle", "max_size")}
    loader = CombinedLoader({"a": range(3), "b": list("xy")}, "max_size")
    results["plain"] = [list(item) for item in loader]
    results["length"] = len(loader)
    print(json.dumps(results))
