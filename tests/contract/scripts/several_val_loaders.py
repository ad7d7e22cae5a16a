"""Validation and test on several sets, watched one by one and together."""

import json

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class MultiSet(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.sums = {}

    def step(self, batch):
        x, y = batch
        return nn.functional.mse_loss(self.layer(x).squeeze(1), y)

    def training_step(self, batch, batch_idx):
        return self.step(batch)

    def validation_step(self, batch, batch_idx, dataloader_idx):
        loss = self.step(batch)
        self.log("val_loss", loss)
        self.log(
            f"shift_{dataloader_idx}", loss, add_dataloader_idx=False, prog_bar=True
        )
        self.sums.setdefault(dataloader_idx, []).append(loss)

    def on_validation_epoch_end(self):
        means = [torch.stack(values).mean() for values in self.sums.values()]
        self.log("val_all", torch.stack(means).mean())
        self.sums = {}

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("test_loss", self.step(batch), on_step=True, on_epoch=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


def loader(rows, shift, shuffle=False):
    x = torch.randn(rows, 4) + shift
    return DataLoader(TensorDataset(x, x.sum(1)), batch_size=8, shuffle=shuffle)


if __name__ == "__main__":
    L.seed_everything(2)
    checkpoint = ModelCheckpoint(
        dirpath="kept",
        monitor="val_loss/dataloader_idx_1",
        filename="{epoch}-{val_all:.2f}",
        save_top_k=2,
    )
    model = MultiSet()
    trainer = L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        callbacks=checkpoint,
        enable_progress_bar=False,
        limit_val_batches=3,
    )
    trainer.fit(model, loader(40, 0, True), [loader(30, 0), loader(20, 1)])
    fit_metrics = {k: v.item() for k, v in trainer.callback_metrics.items()}
    tests = trainer.test(model, [loader(16, 0), loader(10, 2)], verbose=False)
    single = trainer.test(model, loader(10, 2), verbose=False)
    print(
        json.dumps(
            {
                "metrics": {"fit": fit_metrics, "tests": tests, "single": single},
                "names": [sorted(result) for result in tests + single],
                "num_val_batches": trainer.num_val_batches,
                "kept": sorted(p.split("/")[-1] for p in checkpoint.best_k_models),
                "best": checkpoint.best_model_path.split("/")[-1],
                "weights": sum(p.double().sum().item() for p in model.parameters()),
            }
        )
    )
