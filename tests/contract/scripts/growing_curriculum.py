"""A curriculum: the training set grows, and the loader is made anew every two epochs."""

import json

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader


class Curriculum(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.lengths, self.sums = [], []

    def train_dataloader(self):
        rows = 8 * (1 + self.current_epoch)
        generator = torch.Generator().manual_seed(self.current_epoch)
        return DataLoader(torch.randn(rows, 3, generator=generator), batch_size=4)

    def on_train_epoch_start(self):
        self.lengths.append(self.trainer.num_training_batches)

    def training_step(self, batch, batch_idx):
        self.sums.append(batch.sum().item())
        loss = (self.layer(batch) - batch.mean(1, keepdim=True)).pow(2).mean()
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


if __name__ == "__main__":
    L.seed_everything(3)
    model = Curriculum()
    trainer = L.Trainer(
        max_epochs=5,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        reload_dataloaders_every_n_epochs=2,
    )
    trainer.fit(model)
    print(
        json.dumps(
            {
                "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
                "lengths": model.lengths,
                "sums": model.sums,
                "weights": sum(p.double().sum().item() for p in model.parameters()),
                "global_step": trainer.global_step,
            }
        )
    )
