"""A small CNN on the 8x8 digits, with validation accuracy and a final test."""

import json

import lightning as L
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset, random_split


class DigitClassifier(L.LightningModule):
    def __init__(self, width=8, lr=1e-2):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(width * 16, 10),
        )

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = cross_entropy(self(x), y)
        self.log("train_loss", loss, prog_bar=True, on_step=True, on_epoch=True)
        return loss

    def _evaluate(self, batch, prefix):
        x, y = batch
        logits = self(x)
        accuracy = (logits.argmax(1) == y).float().mean()
        self.log(f"{prefix}_loss", cross_entropy(logits, y), prog_bar=True)
        self.log(f"{prefix}_acc", accuracy, prog_bar=True)

    def validation_step(self, batch, batch_idx):
        self._evaluate(batch, "val")

    def test_step(self, batch, batch_idx):
        self._evaluate(batch, "test")

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)


if __name__ == "__main__":
    L.seed_everything(7)
    digits = load_digits()
    images = torch.tensor(digits.images[:600], dtype=torch.float32).unsqueeze(1) / 16
    dataset = TensorDataset(images, torch.tensor(digits.target[:600]))
    train, val, test = random_split(dataset, [400, 100, 100])
    model = DigitClassifier()
    trainer = L.Trainer(
        max_epochs=3, accelerator="cpu", devices=1, enable_model_summary=False
    )
    trainer.fit(
        model,
        DataLoader(train, batch_size=32, shuffle=True),
        DataLoader(val, batch_size=32),
    )
    fit_metrics = {k: v.item() for k, v in trainer.callback_metrics.items()}
    results = trainer.test(model, DataLoader(test, batch_size=32))
    print(
        json.dumps(
            {
                "metrics": {"fit": fit_metrics, "test": results[0]},
                "weights": sum(
                    v.double().sum().item() for v in model.state_dict().values()
                ),
                "global_step": trainer.global_step,
                "current_epoch": trainer.current_epoch,
                "best": trainer.checkpoint_callback.best_model_path.split("/")[-1],
            }
        )
    )
