"""torchmetrics objects: logged as they are, in collections, and computed by hand."""

import json

import lightning as L
import torch
from sklearn.datasets import load_iris
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score


class Flowers(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 3)
        self.train_acc = MulticlassAccuracy(3)
        scores = MetricCollection([MulticlassAccuracy(3), MulticlassF1Score(3)])
        self.val_scores = scores.clone(prefix="val/")
        self.by_hand = MulticlassAccuracy(3, average="micro")

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits = self.net(x)
        self.train_acc(logits, y)
        self.log("train_acc", self.train_acc, on_step=True, on_epoch=True)
        return nn.functional.cross_entropy(logits, y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        logits = self.net(x)
        self.val_scores.update(logits, y)
        self.log_dict(self.val_scores, on_step=False, on_epoch=True)
        self.by_hand.update(logits, y)

    def on_validation_epoch_end(self):
        self.log("val_by_hand", self.by_hand.compute())
        self.by_hand.reset()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.05)


if __name__ == "__main__":
    L.seed_everything(71)
    x, y = load_iris(return_X_y=True)
    dataset = TensorDataset(torch.tensor(x, dtype=torch.float32), torch.tensor(y))
    model = Flowers()
    trainer = L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(
        model, DataLoader(dataset, 32, shuffle=True), DataLoader(dataset, batch_size=64)
    )
    print(
        json.dumps(
            {
                "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
                "weights": sum(p.double().sum().item() for p in model.parameters()),
                "keys": sorted(model.state_dict()),
                "global_step": trainer.global_step,
            }
        )
    )
