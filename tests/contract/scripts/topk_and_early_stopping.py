"""The three best checkpoints, the last one, and an early end; then the best one tested."""

import json
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from sklearn.datasets import load_breast_cancer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split


class Tumour(L.LightningModule):
    def __init__(self, lr=0.05):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(30, 8), nn.ReLU(), nn.Linear(8, 1))

    def shared(self, batch, name):
        x, y = batch
        logits = self.net(x).squeeze(1)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, y)
        accuracy = ((logits > 0) == y.bool()).float().mean()
        self.log(f"{name}/loss", loss, on_step=False, on_epoch=True)
        self.log(f"{name}/acc", accuracy, on_step=False, on_epoch=True)
        return loss

    def training_step(self, batch, batch_idx):
        return self.shared(batch, "train")

    def validation_step(self, batch, batch_idx):
        self.shared(batch, "val")

    def test_step(self, batch, batch_idx):
        self.shared(batch, "test")

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)


if __name__ == "__main__":
    L.seed_everything(123)
    x, y = load_breast_cancer(return_X_y=True)
    x = torch.tensor((x - x.mean(0)) / x.std(0), dtype=torch.float32)
    parts = random_split(TensorDataset(x, torch.tensor(y).float()), [369, 100, 100])
    train, val, test = (
        DataLoader(part, 50, shuffle=i == 0) for i, part in enumerate(parts)
    )
    topk = ModelCheckpoint(
        dirpath="best",
        filename="tumour-{epoch:02d}-{val/acc:.3f}",
        auto_insert_metric_name=False,
        monitor="val/acc",
        mode="max",
        save_top_k=3,
        save_last=True,
    )
    newest = ModelCheckpoint(dirpath="newest", every_n_epochs=2, save_weights_only=True)
    stopping = EarlyStopping("val/loss", patience=2, min_delta=0.001)
    trainer = L.Trainer(
        max_epochs=30,
        min_epochs=3,
        accelerator="cpu",
        logger=False,
        callbacks=[topk, stopping, newest],
        enable_progress_bar=False,
    )
    model = Tumour()
    trainer.fit(model, train, val)
    stopped = [stopping.stopped_epoch, stopping.wait_count]
    kth = Path(topk.kth_best_model_path).name
    last = trainer.test(model, test, verbose=False)
    best = trainer.test(dataloaders=test, ckpt_path="best", verbose=False)
    loaded = Tumour.load_from_checkpoint(topk.best_model_path)
    print(
        json.dumps(
            {
                "metrics": {
                    "last": last,
                    "best": best,
                    "score": topk.best_model_score.item(),
                },
                "stopped": stopped,
                "files": sorted(p.name for p in Path("best").glob("*.ckpt")),
                "newest": sorted(p.name for p in Path("newest").glob("*.ckpt")),
                "best_name": Path(topk.best_model_path).name,
                "kth": kth,
                "state": [trainer.global_step, trainer.current_epoch],
                "weights": sum(p.double().sum().item() for p in loaded.parameters()),
            }
        )
    )
