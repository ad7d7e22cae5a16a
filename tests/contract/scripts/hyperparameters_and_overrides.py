"""Saving hyperparameters in several forms, and loading with some of them changed."""

import json
from argparse import Namespace

import lightning as L
import torch
from torch import nn


class Base(L.LightningModule):
    def __init__(self, hidden=4, activation="relu", **kwargs):
        super().__init__()
        self.save_hyperparameters()
        self.first = nn.Linear(3, hidden)
        self.act = {"relu": nn.ReLU(), "tanh": nn.Tanh()}[activation]

    def training_step(self, batch, batch_idx):
        return self.act(self.first(batch)).mean()

    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.ones(8, 3), batch_size=4)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.get("lr", 0.1))


class Extended(Base):
    def __init__(self, criterion, lr=0.5, betas=(0.9, 0.99), **kwargs):
        super().__init__(**kwargs)
        self.save_hyperparameters(ignore=["criterion"])
        self.criterion = criterion


class Chosen(Base):
    def __init__(self, lr, secret="hidden", scale=2.0):
        super().__init__(hidden=5)
        self.save_hyperparameters("lr", "scale")


class FromConfig(L.LightningModule):
    def __init__(self, config):
        super().__init__()
        self.save_hyperparameters(config)
        self.first = nn.Linear(3, self.hparams.hidden)

    def training_step(self, batch, batch_idx):
        return self.first(batch).mean()

    train_dataloader = Base.train_dataloader
    configure_optimizers = Base.configure_optimizers


def train_and_save(model, path):
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False
    )
    trainer.fit(model)
    trainer.save_checkpoint(path)
    return torch.load(path)["hyper_parameters"]


def plain(hparams):
    return {k: list(v) if isinstance(v, tuple) else v for k, v in hparams.items()}


if __name__ == "__main__":
    L.seed_everything(1)
    extended = Extended(nn.MSELoss(), lr=0.25, hidden=6, note="first")
    stored = train_and_save(extended, "extended.ckpt")
    same = Extended.load_from_checkpoint("extended.ckpt", criterion=nn.L1Loss())
    other = Extended.load_from_checkpoint(
        "extended.ckpt", criterion=nn.L1Loss(), lr=0.75, activation="tanh"
    )
    extended.hparams.lr = 0.125
    chosen = Chosen(0.3)
    chosen_stored = train_and_save(chosen, "chosen.ckpt")
    config_stored = train_and_save(
        FromConfig(Namespace(hidden=7, lr=0.2)), "config.ckpt"
    )
    print(
        json.dumps(
            {
                "stored": plain(stored),
                "same": plain(same.hparams),
                "other": plain(other.hparams),
                "other_activation": type(other.act).__name__,
                "criterion": type(same.criterion).__name__,
                "equal_weights": torch.equal(same.first.weight, extended.first.weight),
                "initial": plain(extended.hparams_initial),
                "changed": plain(extended.hparams),
                "chosen": plain(chosen.hparams),
                "chosen_stored": plain(chosen_stored),
                "config_stored": plain(config_stored),
                "weights": sum(p.double().sum().item() for p in other.parameters()),
            }
        )
    )
