"""Stochastic weight averaging, EMA weight averaging and scheduled accumulation."""

import json

import lightning as L
import torch
from lightning.pytorch.callbacks import (
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    StochasticWeightAveraging,
)
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Regression(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        self.rates, self.steps = [], []

    def loss(self, batch):
        return nn.functional.mse_loss(self.net(batch[0]).squeeze(1), batch[1])

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch))

    def on_train_epoch_end(self):
        self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])
        self.steps.append(self.global_step)

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05)
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)]


def train(callback):
    L.seed_everything(101)
    x = torch.randn(64, 4)
    dataset = TensorDataset(x, x.abs().sum(1))
    model = Regression()
    trainer = L.Trainer(
        max_epochs=6,
        accelerator="cpu",
        logger=False,
        callbacks=callback,
        enable_progress_bar=False,
    )
    trainer.fit(
        model, DataLoader(dataset, 16, shuffle=True), DataLoader(dataset, batch_size=32)
    )
    saved = torch.load(trainer.checkpoint_callback.best_model_path)["state_dict"]
    return {
        "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
        "rates": model.rates,
        "steps": model.steps,
        "weights": sum(p.double().sum().item() for p in model.parameters()),
        "saved": {k: v.double().sum().item() for k, v in sorted(saved.items())},
        "state": [trainer.global_step, trainer.current_epoch],
    }


if __name__ == "__main__":
    print(
        json.dumps(
            {
                "swa": train(
                    StochasticWeightAveraging(
                        0.02, swa_epoch_start=0.5, annealing_epochs=2
                    )
                ),
                "ema": train(EMAWeightAveraging(decay=0.8)),
                "accumulation": train(
                    GradientAccumulationScheduler({0: 4, 2: 2, 4: 1})
                ),
            }
        )
    )
