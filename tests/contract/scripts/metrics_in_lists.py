"""Training and validation metrics gathered in lists, reduced and cleared every epoch."""

import json

import lightning as L
import torch
from lightning.pytorch.loggers import CSVLogger
from sklearn.datasets import load_wine
from sklearn.metrics import f1_score
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Wine(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(13, 10), nn.ReLU(), nn.Linear(10, 3))
        self.train_losses, self.val_pairs = [], []
        self.history = {"loss": [], "f1": []}

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.cross_entropy(self.net(x), y)
        self.train_losses.append(loss.detach())
        self.log("largest", loss, on_step=False, on_epoch=True, reduce_fx="max")
        return loss

    def on_train_epoch_end(self):
        mean = torch.stack(self.train_losses).mean()
        self.log("train_mean", mean)
        self.history["loss"].append(mean.item())
        self.train_losses.clear()

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.val_pairs.append((self.net(x).argmax(1), y))
        self.log("rows", float(len(x)), reduce_fx="sum")
        self.log("smallest", x.min(), reduce_fx=torch.min)

    def on_validation_epoch_end(self):
        predicted = torch.cat([p for p, _ in self.val_pairs]).numpy()
        expected = torch.cat([y for _, y in self.val_pairs]).numpy()
        f1 = f1_score(expected, predicted, average="macro")
        self.log("val_f1", f1, prog_bar=True)
        self.history["f1"].append(f1)
        self.val_pairs.clear()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


if __name__ == "__main__":
    L.seed_everything(16)
    x, y = load_wine(return_X_y=True)
    x = torch.tensor((x - x.mean(0)) / x.std(0), dtype=torch.float32)
    dataset = TensorDataset(x, torch.tensor(y))
    logger = CSVLogger("logs")
    trainer = L.Trainer(
        max_epochs=4,
        accelerator="cpu",
        logger=logger,
        enable_progress_bar=False,
        log_every_n_steps=5,
    )
    model = Wine()
    trainer.fit(
        model, DataLoader(dataset, 32, shuffle=True), DataLoader(dataset, batch_size=50)
    )
    print(
        json.dumps(
            {
                "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
                "history": model.history,
                "log_dir": trainer.log_dir.split("/")[-3:],
                "checkpoint": trainer.checkpoint_callback.best_model_path.split("/")[
                    -5:
                ],
                "weights": sum(p.double().sum().item() for p in model.parameters()),
                "global_step": trainer.global_step,
            }
        )
    )
