"""The tuner: a learning rate from `lr_find` and a batch size, then the training."""

import json

import lightning as L
import torch
from lightning.pytorch.tuner import Tuner
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Tunable(L.LightningModule):
    def __init__(self, lr=1e-4, batch_size=4):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        x = torch.randn(128, 3)
        self.dataset = TensorDataset(x, x.sum(1, keepdim=True))

    def train_dataloader(self):
        return DataLoader(self.dataset, batch_size=self.hparams.batch_size)

    def training_step(self, batch, batch_idx):
        return nn.functional.mse_loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)


if __name__ == "__main__":
    L.seed_everything(37)
    model = Tunable()
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    tuner = Tuner(trainer)
    size = tuner.scale_batch_size(model, init_val=4, max_trials=2, steps_per_trial=1)
    finder = tuner.lr_find(model, min_lr=1e-4, max_lr=1.0, num_training=20)
    before = sum(p.double().sum().item() for p in model.parameters())
    trainer.fit(model)
    print(
        json.dumps(
            {
                "metrics": {"tried": finder.results["loss"]},
                "size": [size, model.hparams.batch_size],
                "rates": finder.results["lr"],
                "suggestion": finder.suggestion(),
                "lr": model.hparams.lr,
                "before": before,
                "weights": sum(p.double().sum().item() for p in model.parameters()),
                "state": [trainer.global_step, trainer.current_epoch],
            }
        )
    )
