"""Training four epochs at once, and as two and two with a resume in between."""

import json

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Classifier(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
        self.epochs_seen, self.rates, self.extra = [], [], None

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.cross_entropy(self.net(x), y)
        self.log("train_loss", loss, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", nn.functional.cross_entropy(self.net(x), y))

    def on_train_epoch_start(self):
        self.epochs_seen.append(self.current_epoch)
        self.rates.append(self.optimizers().param_groups[0]["lr"])

    def on_save_checkpoint(self, checkpoint):
        checkpoint["extra"] = {"epochs_seen": list(self.epochs_seen)}

    def on_load_checkpoint(self, checkpoint):
        self.extra = checkpoint["extra"]

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)]


def run(name, max_epochs, ckpt_path=None):
    L.seed_everything(31)
    x = torch.randn(90, 4)
    dataset = TensorDataset(x, x.abs().argmax(1) % 3)
    model = Classifier()
    checkpoint = ModelCheckpoint(
        dirpath=name, monitor="val_loss", save_last=True, save_top_k=-1
    )
    trainer = L.Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        logger=False,
        callbacks=[checkpoint],
        enable_progress_bar=False,
    )
    # Unshuffled: a resume starts with the random state of a new program.
    trainer.fit(
        model, DataLoader(dataset, 15), DataLoader(dataset, 45), ckpt_path=ckpt_path
    )
    return model, trainer


def summary(model, trainer):
    return {
        "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
        "weights": sum(v.double().sum().item() for v in model.state_dict().values()),
        "state": [trainer.global_step, trainer.current_epoch],
        "epochs_seen": model.epochs_seen,
        "rates": model.rates,
        "extra": model.extra,
        "best": trainer.checkpoint_callback.best_model_path.split("/")[-1],
        "kept": sorted(
            p.split("/")[-1] for p in trainer.checkpoint_callback.best_k_models
        ),
    }


if __name__ == "__main__":
    results = {
        "whole": summary(*run("whole", 4)),
        "first": summary(*run("parts", 2)),
        "second": summary(*run("parts", 4, ckpt_path="parts/last.ckpt")),
    }
    content = torch.load("parts/last.ckpt")
    results["equal"] = results["whole"]["weights"] == results["second"]["weights"]
    results["file"] = [content["epoch"], content["global_step"]]
    print(json.dumps(results))
