"""A network on the diabetes table whose learning rate falls when validation stalls."""

import json

import lightning as L
import torch
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader, TensorDataset


class Regressor(L.LightningModule):
    def __init__(self, features):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features, 16), nn.ReLU(), nn.Linear(16, 1)
        )
        self.loss = nn.MSELoss()
        self.rates = []

    def forward(self, x):
        return self.layers(x).squeeze(-1)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = self.loss(self(x), y)
        self.log("train_mse", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_mse", self.loss(self(x), y))

    def on_train_epoch_end(self):
        self.rates.append(self.optimizers().param_groups[0]["lr"])

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.2, momentum=0.9)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": ReduceLROnPlateau(optimizer, factor=0.5, patience=1),
                "monitor": "val_mse",
            },
        }


if __name__ == "__main__":
    L.seed_everything(3)
    x, y = load_diabetes(return_X_y=True)
    x_train, x_val, y_train, y_val = train_test_split(x, y, random_state=0)
    scaler = StandardScaler().fit(x_train)
    mean, std = y_train.mean(), y_train.std()

    def dataset(x, y):
        return TensorDataset(
            torch.tensor(scaler.transform(x), dtype=torch.float32),
            torch.tensor((y - mean) / std, dtype=torch.float32),
        )

    model = Regressor(x.shape[1])
    trainer = L.Trainer(
        max_epochs=10,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(
        model,
        DataLoader(dataset(x_train, y_train), batch_size=64, shuffle=True),
        DataLoader(dataset(x_val, y_val), batch_size=64),
    )
    print(
        json.dumps(
            {
                "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
                "rates": model.rates,
                "final_rate": trainer.optimizers[0].param_groups[0]["lr"],
                "bad_epochs": trainer.lr_scheduler_configs[0].scheduler.num_bad_epochs,
                "weights": sum(p.double().sum().item() for p in model.parameters()),
                "global_step": trainer.global_step,
            }
        )
    )
