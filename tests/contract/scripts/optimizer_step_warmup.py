"""Warm-up written by hand in `optimizer_step`, and a scheduler stepped by hand."""

import json

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader


class WarmUp(L.LightningModule):
    def __init__(self, lr=0.1, warmup=6):
        super().__init__()
        self.save_hyperparameters()
        self.layer = nn.Linear(4, 1)
        self.rates, self.scheduled = [], []

    def training_step(self, batch, batch_idx):
        return (self.layer(batch).squeeze(1) - batch.sum(1)).pow(2).mean()

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure):
        optimizer.step(closure=optimizer_closure)
        # Skips the rest once the warm-up is over.
        if self.trainer.global_step < self.hparams.warmup:
            scale = min(1.0, (self.trainer.global_step + 1) / self.hparams.warmup)
            for group in optimizer.param_groups:
                group["lr"] = scale * self.hparams.lr
        self.rates.append(optimizer.param_groups[0]["lr"])

    def optimizer_zero_grad(self, epoch, batch_idx, optimizer):
        optimizer.zero_grad(set_to_none=False)

    def lr_scheduler_step(self, scheduler, metric):
        self.scheduled.append([self.trainer.global_step, metric])
        scheduler.step()

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=self.hparams.lr / 6)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.95)
        return [optimizer], [{"scheduler": scheduler, "interval": "epoch"}]


if __name__ == "__main__":
    L.seed_everything(19)
    model = WarmUp()
    trainer = L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(model, DataLoader(torch.randn(40, 4), 8, shuffle=True))
    print(
        json.dumps(
            {
                "rates": model.rates,
                "scheduled": model.scheduled,
                "weights": sum(p.double().sum().item() for p in model.parameters()),
                "global_step": trainer.global_step,
            }
        )
    )
