"""A logger of one's own that keeps what it is given, beside a CSV logger."""

import json
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only
from torch import nn
from torch.utils.data import DataLoader


class MemoryLogger(Logger):
    def __init__(self):
        super().__init__()
        self.rows, self.hparams, self.events = [], {}, []

    @property
    def name(self):
        return "memory"

    @property
    def version(self):
        return "v1"

    @property
    @rank_zero_experiment
    def experiment(self):
        return self.events

    @rank_zero_only
    def log_hyperparams(self, params):
        self.hparams = dict(params)

    @rank_zero_only
    def log_metrics(self, metrics, step):
        self.rows.append([step, sorted(metrics), metrics])

    def after_save_checkpoint(self, checkpoint_callback):
        self.events.append("saved")

    @rank_zero_only
    def finalize(self, status):
        self.events.append(status)


class Model(L.LightningModule):
    def __init__(self, width=4, lr=0.1):
        super().__init__()
        self.save_hyperparameters()
        self.layer = nn.Linear(3, width)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).pow(2).mean()
        self.log("loss", loss)
        self.log("epoch_loss", loss, on_step=False, on_epoch=True)
        self.log("hidden", loss, logger=False, prog_bar=True)
        if batch_idx == 1:
            self.logger.experiment.append(f"direct {self.global_step}")
            self.logger.log_metrics({"own": 1.5}, step=self.global_step)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val", self.layer(batch).mean(), on_step=True, on_epoch=True)

    def test_step(self, batch, batch_idx):
        self.log("test", self.layer(batch).mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)


if __name__ == "__main__":
    L.seed_everything(41)
    memory, csv = MemoryLogger(), CSVLogger("logs", name="mine")
    trainer = L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=[memory, csv],
        log_every_n_steps=3,
        enable_progress_bar=False,
    )
    model = Model()
    data = torch.randn(16, 3)
    trainer.fit(model, DataLoader(data, 4), DataLoader(data, 8))
    trainer.test(model, DataLoader(data, 8), verbose=False)
    print(
        json.dumps(
            {
                "metrics": [row[2] for row in memory.rows],
                "rows": [row[:2] for row in memory.rows],
                "events": memory.events,
                "hparams": memory.hparams,
                "loggers": [trainer.logger.name, len(trainer.loggers)],
                "log_dir": Path(trainer.log_dir).name if trainer.log_dir else None,
                "checkpoint": trainer.checkpoint_callback.best_model_path.split("/")[
                    -4:
                ],
                "files": sorted(p.name for p in Path(csv.log_dir).iterdir()),
            }
        )
    )
