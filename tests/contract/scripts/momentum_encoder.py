"""BYOL: a target network that follows the online one, and callbacks set by the module."""

import copy
import json
import math

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.nn.functional import cosine_similarity
from torch.utils.data import DataLoader


class BYOL(L.LightningModule):
    def __init__(self, tau=0.9):
        super().__init__()
        self.save_hyperparameters()
        self.online = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.predictor = nn.Linear(8, 8)
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.taus = []

    def configure_callbacks(self):
        return [ModelCheckpoint("byol", "{step}", every_n_train_steps=4, save_top_k=-1)]

    def training_step(self, batch, batch_idx):
        first = batch + 0.1 * torch.randn_like(batch)
        second = batch + 0.1 * torch.randn_like(batch)
        prediction = self.predictor(self.online(first))
        with torch.no_grad():
            goal = self.target(second)
        loss = 2 - 2 * cosine_similarity(prediction, goal).mean()
        self.log("loss", loss)
        return {"loss": loss, "features": goal}

    def on_train_batch_end(self, outputs, batch, batch_idx):
        progress = self.global_step / self.trainer.estimated_stepping_batches
        tau = 1 - (1 - self.hparams.tau) * (math.cos(math.pi * progress) + 1) / 2
        self.taus.append(tau)
        self.log("tau", tau)
        self.log("spread", outputs["features"].std(0).mean())
        with torch.no_grad():
            for mine, other in zip(
                self.target.parameters(), self.online.parameters(), strict=True
            ):
                mine.lerp_(other, 1 - tau)

    def configure_optimizers(self):
        trained = [*self.online.parameters(), *self.predictor.parameters()]
        return torch.optim.SGD(trained, lr=0.05, momentum=0.9, weight_decay=1e-4)


if __name__ == "__main__":
    L.seed_everything(58)
    model = BYOL()
    trainer = L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        callbacks=[ModelCheckpoint("unused")],
        enable_progress_bar=False,
    )
    loader = DataLoader(torch.randn(48, 6), batch_size=12, shuffle=True)
    trainer.fit(model, loader)
    print(
        json.dumps(
            {
                "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
                "taus": model.taus,
                "online": sum(
                    p.double().sum().item() for p in model.online.parameters()
                ),
                "target": sum(
                    p.double().sum().item() for p in model.target.parameters()
                ),
                "kept": sorted(
                    p.split("/")[-2:] for p in trainer.checkpoint_callback.best_k_models
                ),
                "checkpoints": len(trainer.checkpoint_callbacks),
                "global_step": trainer.global_step,
            }
        )
    )
