"""An autoencoder that gathers its codes and looks at them after each validation."""

import json

import lightning as L
import torch
from sklearn.datasets import load_iris
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class AutoEncoder(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
        self.decoder = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 4))
        self.validation_step_outputs = []
        self.spreads = []

    def forward(self, x):
        return self.encoder(x)

    def training_step(self, batch, batch_idx):
        x, _ = batch
        loss = nn.functional.mse_loss(self.decoder(self(x)), x)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        code = self(x)
        self.validation_step_outputs.append((code, y))
        return nn.functional.mse_loss(self.decoder(code), x)

    def on_validation_batch_end(self, outputs, batch, batch_idx, dataloader_idx=0):
        self.log("val_loss", outputs, batch_size=len(batch[0]))

    def on_validation_epoch_end(self):
        codes, labels = map(torch.cat, zip(*self.validation_step_outputs, strict=True))
        centres = torch.stack([codes[labels == c].mean(0) for c in range(3)])
        spread = torch.pdist(centres).mean()
        self.log("val_spread", spread)
        if not self.trainer.sanity_checking:
            self.spreads.append(spread.item())
        self.validation_step_outputs.clear()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


if __name__ == "__main__":
    L.seed_everything(0)
    x, y = load_iris(return_X_y=True)
    features = torch.tensor(x, dtype=torch.float32)
    features = (features - features.mean(0)) / features.std(0)
    dataset = TensorDataset(features, torch.tensor(y))
    model = AutoEncoder()
    trainer = L.Trainer(
        max_epochs=4,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        num_sanity_val_steps=-1,
        check_val_every_n_epoch=2,
    )
    trainer.fit(
        model,
        DataLoader(dataset, batch_size=16, shuffle=True),
        DataLoader(dataset, batch_size=64),
    )
    print(
        json.dumps(
            {
                "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
                "spreads": model.spreads,
                "left_over": len(model.validation_step_outputs),
                "weights": sum(p.double().sum().item() for p in model.parameters()),
                "global_step": trainer.global_step,
            }
        )
    )
