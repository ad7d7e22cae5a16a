"""A small network in every number format; two of them come as plugins."""

import json

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import HalfPrecision, MixedPrecision
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class CountingIO(TorchCheckpointIO):
    def __init__(self):
        super().__init__()
        self.saved = self.loaded = 0

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        self.saved += 1
        super().save_checkpoint(checkpoint, path, storage_options)

    def load_checkpoint(self, path, *args, **kwargs):
        self.loaded += 1
        return super().load_checkpoint(path, *args, **kwargs)


class Classifier(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(6, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 3)
        )
        self.dtypes = set()

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits = self.net(x)
        self.dtypes.add(f"{x.dtype} {logits.dtype} {torch.get_default_dtype()}")
        return nn.functional.cross_entropy(logits, y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        # A threshold is coarse enough for metrics that are kept in different precision.
        hits = (self.net(x).argmax(1) == y).float().mean()
        self.log("val_acc", hits, batch_size=len(x))

    def predict_step(self, batch, batch_idx):
        return self.net(batch[0]).argmax(1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def train(**settings):
    L.seed_everything(5)
    x = torch.randn(64, 6)
    loader = DataLoader(TensorDataset(x, x[:, :3].argmax(1)), 16, shuffle=True)
    plain = DataLoader(loader.dataset, 16)
    model, io = Classifier(), CountingIO()
    plugins = [*settings.pop("plugins", []), io]
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=3,
        gradient_clip_val=1.0,
        logger=False,
        enable_progress_bar=False,
        callbacks=ModelCheckpoint(".", monitor="val_acc", mode="max"),
        plugins=plugins,
        **settings,
    )
    trainer.fit(model, loader, plain)
    trainer.validate(model, plain, ckpt_path="best", verbose=False)
    predictions = trainer.predict(model, plain)
    return {
        "precision": trainer.precision,
        "dtypes": sorted(model.dtypes),
        "module": str(model.dtype),
        "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
        "weights": sum(p.double().sum().item() for p in model.parameters()),
        "predicted": torch.cat(predictions).tolist(),
        "files": [io.saved, io.loaded],
        "scaler": trainer.scaler is not None,
    }


if __name__ == "__main__":
    results = {
        name: train(precision=name) for name in ("32-true", "64-true", "bf16-mixed")
    }
    results["half"] = train(plugins=[HalfPrecision("bf16-true")])
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=4)
    results["scaled"] = train(plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    results["scale"] = scaler.get_scale()
    print(json.dumps(results))
