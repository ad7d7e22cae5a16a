"""Streaming from an iterable dataset without a length, ended by steps and limits."""

import json

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset


class Stream(IterableDataset):
    """Yields a random walk; every pass is another one."""

    def __init__(self, rows, seed):
        self.rows, self.seed, self.passes = rows, seed, 0

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.seed + self.passes)
        self.passes += 1
        position = torch.zeros(2)
        for _ in range(self.rows):
            step = torch.randn(2, generator=generator)
            yield position, step
            position = position + step


class Walker(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, 2)
        self.batches, self.validated_at = 0, []

    def training_step(self, batch):
        self.batches += 1
        loss = nn.functional.mse_loss(self.net(batch[0]), batch[1])
        self.log("train_loss", loss, on_epoch=True)
        return loss

    def validation_step(self, batch):
        self.log("val_loss", nn.functional.mse_loss(self.net(batch[0]), batch[1]))

    def on_validation_epoch_end(self):
        self.validated_at.append([self.current_epoch, self.global_step])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.001)


def train(**flags):
    L.seed_everything(0)
    model, stream = Walker(), Stream(30, 1)
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        **flags,
    )
    val = DataLoader(Stream(9, 2), batch_size=4)
    trainer.fit(model, DataLoader(stream, batch_size=4), val)
    return {
        "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
        "batches": [model.batches, str(trainer.num_training_batches)],
        "validated_at": model.validated_at,
        "passes": stream.passes,
        "weights": sum(p.double().sum().item() for p in model.parameters()),
        "state": [trainer.global_step, trainer.current_epoch],
    }


if __name__ == "__main__":
    print(
        json.dumps(
            {
                "epochs": train(max_epochs=2),
                "steps": train(max_steps=11, max_epochs=-1),
                "limited": train(max_epochs=3, limit_train_batches=4),
                "interval": train(
                    max_steps=20, val_check_interval=6, check_val_every_n_epoch=None
                ),
                "accumulated": train(
                    max_epochs=2, limit_train_batches=6, accumulate_grad_batches=3
                ),
            }
        )
    )
