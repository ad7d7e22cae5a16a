"""Logistic regression fitted with LBFGS, which calls its closure many times a step."""

import json

import lightning as L
import torch
from sklearn.datasets import load_iris
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Logistic(L.LightningModule):
    def __init__(self, decay=1e-3):
        super().__init__()
        self.save_hyperparameters()
        self.linear = nn.Linear(4, 3)
        self.evaluations = 0

    def forward(self, x):
        return self.linear(x).softmax(1)

    def training_step(self, batch, batch_idx):
        self.evaluations += 1
        x, y = batch
        loss = nn.functional.cross_entropy(self.linear(x), y)
        loss = loss + self.hparams.decay * self.linear.weight.pow(2).sum()
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("acc", (self(x).argmax(1) == y).float().mean())

    def configure_optimizers(self):
        return torch.optim.LBFGS(
            self.parameters(), lr=0.5, max_iter=6, line_search_fn="strong_wolfe"
        )


if __name__ == "__main__":
    L.seed_everything(10)
    x, y = load_iris(return_X_y=True)
    dataset = TensorDataset(torch.tensor(x, dtype=torch.float32), torch.tensor(y))
    model = Logistic()
    trainer = L.Trainer(
        max_epochs=4, accelerator="cpu", logger=False, enable_progress_bar=False
    )
    loader = DataLoader(dataset, batch_size=len(dataset))
    trainer.fit(model, loader, loader)
    print(
        json.dumps(
            {
                "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
                "evaluations": model.evaluations,
                "weights": sum(p.double().sum().item() for p in model.parameters()),
                "global_step": trainer.global_step,
                "checkpoint": trainer.checkpoint_callback.best_model_path.split("/")[
                    -1
                ],
            }
        )
    )
