"""Sequence to sequence, whose share of teacher forcing falls from epoch to epoch."""

import json
import random

import lightning as L
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

START = 0


class Seq2Seq(L.LightningModule):
    def __init__(self, vocabulary=6, width=10, forcing=1.0, decay=0.4):
        super().__init__()
        self.save_hyperparameters()
        self.embedding = nn.Embedding(vocabulary, width)
        self.encoder = nn.GRU(width, width, batch_first=True)
        self.decoder = nn.GRUCell(width, width)
        self.out = nn.Linear(width, vocabulary)
        self.forcing = forcing
        self.choices = []

    def on_train_epoch_start(self):
        self.forcing = max(
            0.0, self.hparams.forcing - self.hparams.decay * self.current_epoch
        )
        self.log("forcing", self.forcing)

    def forward(self, source, target=None, forcing=0.0):
        state = self.encoder(self.embedding(source))[1][0]
        token = torch.full((len(source),), START, device=self.device)
        logits = []
        for position in range(source.shape[1]):
            state = self.decoder(self.embedding(token), state)
            logits.append(self.out(state))
            forced = target is not None and random.random() < forcing
            self.choices.append(int(forced))
            token = target[:, position] if forced else logits[-1].argmax(1)
        return torch.stack(logits, dim=1)

    def training_step(self, batch, batch_idx):
        source, target = batch
        logits = self(source, target, self.forcing)
        loss = F.cross_entropy(logits.flatten(0, 1), target.flatten())
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        source, target = batch
        logits = self(source)
        self.log("val_loss", F.cross_entropy(logits.flatten(0, 1), target.flatten()))
        exact = (logits.argmax(2) == target).all(1).float()
        self.log("exact", exact.mean(), prog_bar=True)

    def predict_step(self, batch, batch_idx, dataloader_idx=0):
        return self(batch[0]).argmax(2).tolist()

    def on_save_checkpoint(self, checkpoint):
        checkpoint["forcing"] = self.forcing

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.02)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9),
                "interval": "epoch",
            },
        }


if __name__ == "__main__":
    L.seed_everything(55)
    source = torch.randint(1, 6, (36, 4))
    data = TensorDataset(source, source.flip(1))
    model = Seq2Seq()
    trainer = L.Trainer(
        max_epochs=4,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        gradient_clip_val=0.5,
        gradient_clip_algorithm="value",
    )
    trainer.fit(model, DataLoader(data, 9, shuffle=True), DataLoader(data, 12))
    fitted = {k: v.item() for k, v in trainer.callback_metrics.items()}
    predicted = trainer.predict(model, DataLoader(data, 12))
    content = torch.load(trainer.checkpoint_callback.best_model_path)
    print(
        json.dumps(
            {
                "metrics": fitted,
                "forcing": [model.forcing, content["forcing"]],
                "choices": sum(model.choices),
                "predicted": predicted[0][:2],
                "weights": model.out.weight.double().sum().item(),
            }
        )
    )
