"""Semi-supervised training from a dictionary of loaders of different lengths."""

import json

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class SemiSupervised(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(6, 4)
        self.decoder = nn.Linear(4, 6)
        self.classifier = nn.Linear(4, 2)
        self.sizes = []

    def training_step(self, batch, batch_idx):
        x, y = batch["labeled"]
        (unlabeled,) = batch["unlabeled"]
        self.sizes.append([len(x), len(unlabeled)])
        supervised = nn.functional.cross_entropy(self.classifier(self.encoder(x)), y)
        rebuilt = self.decoder(torch.tanh(self.encoder(unlabeled)))
        unsupervised = nn.functional.mse_loss(rebuilt, unlabeled)
        self.log_dict({"supervised": supervised, "unsupervised": unsupervised})
        return supervised + 0.5 * unsupervised

    def train_dataloader(self):
        x = torch.randn(50, 6)
        labeled = TensorDataset(x, (x[:, 0] > 0).long())
        return {
            "labeled": DataLoader(labeled, batch_size=16, shuffle=True),
            "unlabeled": DataLoader(
                TensorDataset(torch.randn(150, 6)), batch_size=20, shuffle=True
            ),
        }

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=5e-3)


if __name__ == "__main__":
    L.seed_everything(21)
    model = SemiSupervised()
    trainer = L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(model)
    print(
        json.dumps(
            {
                "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
                "sizes": model.sizes,
                "batches": trainer.num_training_batches,
                "weights": sum(p.double().sum().item() for p in model.parameters()),
                "global_step": trainer.global_step,
            }
        )
    )
