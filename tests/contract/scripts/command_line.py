"""`LightningCLI` run from Python: arguments, a config file and what it saves."""

import json
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.cli import LightningCLI
from torch import nn
from torch.utils.data import DataLoader


class Model(L.LightningModule):
    def __init__(self, width: int = 4, lr: float = 0.1):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 1))

    def training_step(self, batch, batch_idx):
        loss = (self.net(batch) - batch.sum(1, keepdim=True)).pow(2).mean()
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.net(batch).mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)


class Data(L.LightningDataModule):
    def __init__(self, rows: int = 40, batch_size: int = 8):
        super().__init__()
        self.save_hyperparameters()

    def train_dataloader(self):
        data = torch.randn(self.hparams.rows, 3)
        return DataLoader(data, batch_size=self.hparams.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(torch.randn(8, 3), batch_size=self.hparams.batch_size)


def run(*args):
    common = {"accelerator": "cpu", "enable_progress_bar": False}
    cli = LightningCLI(
        Model,
        Data,
        seed_everything_default=12,
        trainer_defaults=common,
        args=list(args),
    )
    trainer = cli.trainer
    return {
        "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
        "hparams": [cli.model.hparams.width, cli.datamodule.hparams.batch_size],
        "weights": sum(p.double().sum().item() for p in cli.model.parameters()),
        "state": [trainer.global_step, trainer.current_epoch],
    }


if __name__ == "__main__":
    Path("own.yaml").write_text(
        "model:\n  width: 6\ntrainer:\n  max_epochs: 3\n  logger: false\n"
        "data:\n  rows: 24\n"
    )
    logger = ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=logs"]
    logged = run("fit", "--trainer.max_epochs=1", *logger)
    filed = run("fit", "--config=own.yaml", "--model.lr=0.05", "--data.batch_size=4")
    print(
        json.dumps(
            {
                "logged": logged,
                "filed": filed,
                "saved": sorted(p.as_posix() for p in Path("logs").rglob("*.*ml")),
            }
        )
    )
