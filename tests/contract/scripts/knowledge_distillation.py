"""A student learns from a frozen teacher that was trained and saved first."""

import json

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset


class Teacher(L.LightningModule):
    def __init__(self, hidden=48):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Linear(64, hidden), nn.ReLU(), nn.Dropout(0.2), nn.Linear(hidden, 10)
        )

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("acc", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=5e-3)


class Student(L.LightningModule):
    def __init__(self, teacher, temperature=2.0):
        super().__init__()
        self.save_hyperparameters(ignore="teacher")
        self.teacher = teacher.eval().requires_grad_(False)
        self.net = nn.Linear(64, 10)

    def on_train_epoch_start(self):
        self.teacher.eval()

    def training_step(self, batch, batch_idx):
        x, y = batch
        with torch.no_grad():
            soft = (self.teacher(x) / self.hparams.temperature).softmax(1)
        logits = self.net(x)
        hard = F.cross_entropy(logits, y)
        scaled = (logits / self.hparams.temperature).log_softmax(1)
        distilled = F.kl_div(scaled, soft, reduction="batchmean")
        self.log_dict({"hard": hard, "distilled": distilled}, on_epoch=True)
        return hard + self.hparams.temperature**2 * distilled

    def validation_step(self, batch, batch_idx):
        self.log("acc", (self.net(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), lr=0.2)

    def on_save_checkpoint(self, checkpoint):
        kept = {k: v for k, v in checkpoint["state_dict"].items() if "teacher" not in k}
        checkpoint["state_dict"] = kept


def fit(model, folder, epochs):
    checkpoint = ModelCheckpoint(folder, "{epoch}", monitor="acc", mode="max")
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        callbacks=[checkpoint],
        enable_progress_bar=False,
    )
    trainer.fit(model, train, val)
    return trainer, checkpoint


if __name__ == "__main__":
    L.seed_everything(60)
    digits = load_digits()
    x = torch.tensor(digits.data / 16, dtype=torch.float32)
    y = torch.tensor(digits.target)
    train = DataLoader(TensorDataset(x[:500], y[:500]), 50, shuffle=True)
    val = DataLoader(TensorDataset(x[500:700], y[500:700]), batch_size=100)
    _, best = fit(Teacher(), "teacher", 3)
    teacher = Teacher.load_from_checkpoint(best.best_model_path)
    student = Student(teacher)
    trainer, kept = fit(student, "student", 2)
    loaded = Student.load_from_checkpoint(
        kept.best_model_path, teacher=teacher, strict=False
    )
    print(
        json.dumps(
            {
                "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
                "teacher": sum(p.double().sum().item() for p in teacher.parameters()),
                "student": student.net.weight.double().sum().item(),
                "loaded": loaded.net.weight.double().sum().item(),
                "keys": sorted(torch.load(kept.best_model_path)["state_dict"]),
                "names": [
                    p.split("/")[-1]
                    for p in (best.best_model_path, kept.best_model_path)
                ],
            }
        )
    )
