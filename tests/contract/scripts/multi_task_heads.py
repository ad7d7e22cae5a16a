"""One body, a dictionary of heads, and a dictionary of metrics for each stage."""

import json

import lightning as L
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

TASKS = {"kind": 3, "size": 1, "valid": 2}


class Records(Dataset):
    def __init__(self, count, seed):
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(count, 6, generator=generator)
        self.kind = self.x[:, :3].argmax(1)
        self.size = self.x[:, 3:4] * 2
        self.valid = (self.x[:, 4] > 0).long()

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        targets = {name: getattr(self, name)[index] for name in TASKS}
        return {"x": self.x[index], "targets": targets}


class MultiTask(L.LightningModule):
    def __init__(self, weights=None):
        super().__init__()
        self.save_hyperparameters()
        self.body = nn.Sequential(nn.Linear(6, 12), nn.ReLU())
        self.heads = nn.ModuleDict({k: nn.Linear(12, n) for k, n in TASKS.items()})
        self.log_scales = nn.ParameterDict(
            {name: nn.Parameter(torch.zeros(())) for name in TASKS}
        )

    def forward(self, x):
        features = self.body(x)
        return {name: head(features) for name, head in self.heads.items()}

    def losses(self, batch, stage):
        outputs, targets = self(batch["x"]), batch["targets"]
        losses = {
            "kind": F.cross_entropy(outputs["kind"], targets["kind"]),
            "size": F.mse_loss(outputs["size"], targets["size"]),
            "valid": F.cross_entropy(outputs["valid"], targets["valid"]),
        }
        total = sum(
            loss * torch.exp(-self.log_scales[name]) + self.log_scales[name]
            for name, loss in losses.items()
        )
        logged = {f"{stage}/{name}": loss for name, loss in losses.items()}
        logged[f"{stage}/total"] = total
        self.log_dict(logged, on_step=False, on_epoch=True, prog_bar=stage == "val")
        return total, outputs

    def training_step(self, batch, batch_idx):
        total, outputs = self.losses(batch, "train")
        return {"loss": total, "kind": outputs["kind"].detach()}

    def on_train_batch_end(self, outputs, batch, batch_idx):
        hits = (outputs["kind"].argmax(1) == batch["targets"]["kind"]).float().mean()
        self.log("train/kind_acc", hits, on_step=False, on_epoch=True)

    def validation_step(self, batch, batch_idx):
        self.losses(batch, "val")

    def configure_optimizers(self):
        scales = list(self.log_scales.parameters())
        others = [*self.body.parameters(), *self.heads.parameters()]
        return torch.optim.AdamW(
            [
                {"params": others, "weight_decay": 0.01},
                {"params": scales, "lr": 0.05, "weight_decay": 0.0},
            ],
            lr=0.01,
        )


if __name__ == "__main__":
    L.seed_everything(52)
    model = MultiTask()
    trainer = L.Trainer(
        max_epochs=4,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        callbacks=[L.pytorch.callbacks.ModelCheckpoint(monitor="val/total")],
    )
    trainer.fit(
        model,
        DataLoader(Records(45, 0), batch_size=10, shuffle=True),
        DataLoader(Records(17, 1), batch_size=10),
    )
    print(
        json.dumps(
            {
                "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
                "bar": sorted(trainer.progress_bar_metrics),
                "weights": sum(p.double().sum().item() for p in model.parameters()),
                "rates": [g["lr"] for g in trainer.optimizers[0].param_groups],
                "best": trainer.checkpoint_callback.best_model_path.split("/")[-1],
            }
        )
    )
