"""OneCycleLR over `estimated_stepping_batches`, with parameter groups without decay."""

import json

import lightning as L
import torch
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class OneCycle(L.LightningModule):
    def __init__(self, max_lr=0.1):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(6, 12), nn.LayerNorm(12), nn.Linear(12, 2))
        self.total = None

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.cross_entropy(self.net(x), y, label_smoothing=0.1)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        decay = [p for p in self.parameters() if p.ndim > 1]
        rest = [p for p in self.parameters() if p.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [
                {"params": decay, "weight_decay": 0.1},
                {"params": rest, "weight_decay": 0.0},
            ],
            lr=self.hparams.max_lr / 25,
        )
        self.total = self.trainer.estimated_stepping_batches
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=self.hparams.max_lr, total_steps=self.total
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def train(**flags):
    L.seed_everything(55)
    x = torch.randn(100, 6)
    loader = DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), 12, shuffle=True)
    monitor = LearningRateMonitor("step")
    model = OneCycle()
    trainer = L.Trainer(
        accelerator="cpu",
        logger=CSVLogger("."),
        callbacks=[monitor],
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        **flags,
    )
    trainer.fit(model, loader)
    return {
        "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
        "total": model.total,
        "rates": monitor.lrs,
        "weights": sum(p.double().sum().item() for p in model.parameters()),
        "state": [trainer.global_step, trainer.current_epoch],
    }


if __name__ == "__main__":
    print(
        json.dumps(
            {
                "epochs": train(max_epochs=3),
                "accumulated": train(max_epochs=2, accumulate_grad_batches=3),
                "steps": train(max_epochs=5, max_steps=11),
                "limited": train(max_epochs=2, limit_train_batches=0.5),
            }
        )
    )
