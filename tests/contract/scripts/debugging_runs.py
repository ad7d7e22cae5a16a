"""What one does before the long run: fast_dev_run, overfit_batches, limits, anomalies."""

import json
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        self.counts = {"train": 0, "val": 0, "sanity": 0, "test": 0}
        self.first = []

    def loss(self, batch, stage):
        self.counts[stage] += 1
        return nn.functional.mse_loss(self.net(batch[0]), batch[1])

    def training_step(self, batch, batch_idx):
        if batch_idx == 0:
            self.first.append(batch[0].sum().item())
        loss = self.loss(batch, "train")
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        stage = "sanity" if self.trainer.sanity_checking else "val"
        self.log("val_loss", self.loss(batch, stage))

    def test_step(self, batch, batch_idx):
        self.log("test_loss", self.loss(batch, "test"))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def attempt(name, callbacks=None, **flags):
    L.seed_everything(88)
    x = torch.randn(60, 4)
    train = DataLoader(TensorDataset(x, x.sum(1, True)), batch_size=6, shuffle=True)
    val = DataLoader(TensorDataset(x, x.sum(1, True)), batch_size=12)
    model = Model()
    trainer = L.Trainer(
        accelerator="cpu",
        default_root_dir=name,
        callbacks=callbacks,
        enable_progress_bar=False,
        **flags,
    )
    trainer.fit(model, train, val)
    trainer.test(model, val, verbose=False)
    return {
        "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
        "counts": model.counts,
        "first": model.first,
        "state": [trainer.global_step, trainer.current_epoch, trainer.max_epochs],
        "weights": sum(p.double().sum().item() for p in model.parameters()),
        "files": sorted(p.name for p in Path(name).rglob("*.ckpt")),
    }


if __name__ == "__main__":
    watching = [EarlyStopping("val_loss"), ModelCheckpoint(monitor="val_loss")]
    print(
        json.dumps(
            {
                "one": attempt("one", watching, fast_dev_run=True, max_epochs=9),
                "three": attempt("three", fast_dev_run=3),
                "overfit": attempt("overfit", overfit_batches=2, max_epochs=4),
                "share": attempt("share", overfit_batches=0.3, max_epochs=2),
                "limits": attempt(
                    "limits",
                    limit_train_batches=0.25,
                    limit_val_batches=2,
                    limit_test_batches=1,
                    num_sanity_val_steps=1,
                    max_epochs=2,
                    detect_anomaly=True,
                ),
                "no_val": attempt("no_val", limit_val_batches=0, max_epochs=1),
                "minimum": attempt(
                    "minimum",
                    [EarlyStopping("val_loss", stopping_threshold=1e9)],
                    min_steps=15,
                    max_epochs=5,
                ),
            }
        )
    )
