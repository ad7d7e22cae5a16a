"""`LambdaCallback` for quick looks, and `LearningRateMonitor` beside a CSV logger."""

import csv
import json
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import LambdaCallback, LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader


class Two(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        loss = self.b(torch.relu(self.a(batch))).pow(2).mean()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(
            [
                {"params": self.a.parameters(), "lr": 0.1},
                {"params": self.b.parameters(), "lr": 0.01},
            ],
            momentum=0.8,
        )
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3, gamma=0.5)
        config = {"scheduler": scheduler, "interval": "step", "name": "decay"}
        return {"optimizer": optimizer, "lr_scheduler": config}


if __name__ == "__main__":
    L.seed_everything(4)
    seen = []
    looks = LambdaCallback(
        setup=lambda trainer, module, stage: seen.append(stage),
        on_train_epoch_start=lambda trainer, module: seen.append(trainer.current_epoch),
        on_train_end=lambda trainer, module: seen.append("end"),
    )
    monitor = LearningRateMonitor(logging_interval="step", log_momentum=True)
    logger = CSVLogger("logs", name="two", version=0)
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=logger,
        callbacks=[looks, monitor],
        log_every_n_steps=2,
        enable_progress_bar=False,
        enable_checkpointing=False,
    )
    model = Two()
    trainer.fit(model, DataLoader(torch.randn(40, 4), 8, shuffle=True))
    with Path(logger.log_dir, "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    print(
        json.dumps(
            {
                "metrics": {
                    "rows": [
                        {k: float(v) for k, v in row.items() if v} for row in rows
                    ],
                    "last": {k: v.item() for k, v in trainer.logged_metrics.items()},
                },
                "seen": seen,
                "keys": sorted(monitor.lrs),
                "lrs": monitor.lrs,
                "files": sorted(p.name for p in Path(logger.log_dir).iterdir()),
                "weights": sum(p.double().sum().item() for p in model.parameters()),
            }
        )
    )
