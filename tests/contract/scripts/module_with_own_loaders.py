"""A module that brings its loaders, validates inside epochs and ends by steps."""

import json

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, RandomSampler


class Complete(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.asked, self.validated_at = [], []

    def loader(self, name, rows):
        self.asked.append(name)
        generator = torch.Generator().manual_seed(len(name))
        return DataLoader(torch.randn(rows, 3, generator=generator), batch_size=4)

    def train_dataloader(self):
        generator = torch.Generator().manual_seed(99)
        data = torch.randn(40, 3, generator=generator)
        sampler = RandomSampler(data, replacement=True, num_samples=32)
        self.asked.append("train")
        return DataLoader(data, batch_size=4, sampler=sampler, drop_last=True)

    def val_dataloader(self):
        return self.loader("val", 12)

    def test_dataloader(self):
        return [self.loader("test", 8), self.loader("test too", 6)]

    def predict_dataloader(self):
        return self.loader("predict", 10)

    def forward(self, x):
        return self.layer(x)

    def training_step(self, batch, batch_idx):
        loss = (self(batch) - batch.sum(1, keepdim=True)).pow(2).mean()
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self(batch).pow(2).mean())

    def on_validation_start(self):
        if not self.trainer.sanity_checking:
            self.validated_at.append(self.global_step)

    def test_step(self, batch, batch_idx, dataloader_idx):
        self.log("test_loss", self(batch).pow(2).mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


if __name__ == "__main__":
    L.seed_everything(17)
    model = Complete()
    trainer = L.Trainer(
        max_steps=27,
        val_check_interval=0.5,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        limit_predict_batches=2,
    )
    trainer.fit(model)
    state = [trainer.global_step, trainer.current_epoch, trainer.should_stop]
    validated = trainer.validate(model, verbose=False)
    tested = trainer.test(model, verbose=False)
    predictions = trainer.predict(model)
    print(
        json.dumps(
            {
                "metrics": {"validated": validated, "tested": tested},
                "state": state,
                "asked": model.asked,
                "validated_at": model.validated_at,
                "predictions": [p.double().sum().item() for p in predictions],
                "weights": sum(p.double().sum().item() for p in model.parameters()),
                "checkpoint": trainer.checkpoint_callback.best_model_path.split("/")[
                    -1
                ],
            }
        )
    )
