"""Cross-validation: one Trainer, one model and one pair of loaders for each fold."""

import json
from pathlib import Path

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from sklearn.datasets import load_wine
from sklearn.model_selection import StratifiedKFold
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset


class Classifier(L.LightningModule):
    def __init__(self, features, classes, fold):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Linear(features, classes)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        logits = self.net(batch[0])
        self.log_dict(
            {
                "val_loss": nn.functional.cross_entropy(logits, batch[1]),
                "val_acc": (logits.argmax(1) == batch[1]).float().mean(),
            }
        )

    def configure_optimizers(self):
        return torch.optim.RMSprop(self.parameters(), lr=5e-3)


if __name__ == "__main__":
    L.seed_everything(70)
    x, y = load_wine(return_X_y=True)
    x = torch.tensor((x - x.mean(0)) / x.std(0), dtype=torch.float32)
    dataset = TensorDataset(x, torch.tensor(y))
    folds, scores = [], []
    splits = StratifiedKFold(3, shuffle=True, random_state=0).split(x, y)
    for fold, (train_rows, val_rows) in enumerate(splits):
        model = Classifier(13, 3, fold)
        checkpoint = ModelCheckpoint(
            dirpath=f"folds/{fold}",
            monitor="val_loss",
            filename="{epoch}-{val_acc:.2f}",
        )
        trainer = L.Trainer(
            max_epochs=4,
            accelerator="cpu",
            devices=1,
            logger=False,
            callbacks=[checkpoint, EarlyStopping("val_acc", mode="max", patience=1)],
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        train = DataLoader(Subset(dataset, train_rows), batch_size=20, shuffle=True)
        val = DataLoader(Subset(dataset, val_rows), batch_size=20)
        trainer.fit(model, train, val)
        (result,) = trainer.validate(
            model, val, ckpt_path=checkpoint.best_model_path, verbose=False
        )
        scores.append(result)
        folds.append(
            {
                "epochs": trainer.current_epoch,
                "steps": trainer.global_step,
                "weights": sum(p.double().sum().item() for p in model.parameters()),
            }
        )
    print(
        json.dumps(
            {
                "metrics": {
                    "folds": scores,
                    "mean": float(np.mean([score["val_acc"] for score in scores])),
                },
                "folds": folds,
                "files": sorted(p.as_posix() for p in Path("folds").rglob("*.ckpt")),
            }
        )
    )
