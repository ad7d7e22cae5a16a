"""Lightning modules inside a Lightning module, one of them trained alone later."""

import json

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Part(L.LightningModule):
    """A part that can be trained alone as well."""

    def __init__(self, name, width):
        super().__init__()
        self.save_hyperparameters()
        self.layer = nn.Linear(4, width)
        self.steps_seen = []

    def forward(self, x):
        return torch.tanh(self.layer(x))

    def penalty(self):
        self.steps_seen.append([self.global_step, self.current_epoch])
        return self.layer.weight.pow(2).mean()

    def training_step(self, batch, batch_idx):
        loss = self(batch[0]).pow(2).mean() + self.penalty()
        self.log(f"{self.hparams.name}_loss", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Whole(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.left, self.right = Part("left", 3), Part("right", 3)
        self.head = nn.Linear(6, 1)
        self.example_input_array = torch.zeros(2, 4)

    def forward(self, x):
        return self.head(torch.cat([self.left(x), self.right(x)], 1)).squeeze(1)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.mse_loss(self(x), y)
        self.log("mse", loss, prog_bar=True)
        penalty = self.left.penalty() + self.right.penalty()
        self.log("penalty", penalty, on_step=False, on_epoch=True)
        return loss + 0.01 * penalty

    def configure_optimizers(self):
        groups = [
            {"params": self.left.parameters(), "lr": 0.05},
            {"params": self.right.parameters(), "lr": 0.02},
            {"params": self.head.parameters()},
        ]
        return torch.optim.Adam(groups, lr=0.01)


def fit(model, loader):
    trainer = L.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False
    )
    trainer.fit(model, loader)
    return trainer


if __name__ == "__main__":
    L.seed_everything(52)
    x = torch.randn(40, 4)
    loader = DataLoader(TensorDataset(x, x.prod(1)), batch_size=10, shuffle=True)
    whole = Whole()
    trainer = fit(whole, loader)
    content = torch.load(trainer.checkpoint_callback.best_model_path)
    alone = fit(whole.left, loader)
    print(
        json.dumps(
            {
                "metrics": {
                    "whole": {k: v.item() for k, v in trainer.callback_metrics.items()},
                    "alone": {k: v.item() for k, v in alone.callback_metrics.items()},
                },
                "seen": whole.left.steps_seen,
                "keys": sorted(content["state_dict"]),
                "hparams": content.get("hyper_parameters"),
                "weights": sum(p.double().sum().item() for p in whole.parameters()),
                "steps": [trainer.global_step, alone.global_step],
            }
        )
    )
