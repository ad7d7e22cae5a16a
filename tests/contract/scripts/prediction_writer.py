"""Predictions returned and written: by batch, by epoch, with the rows they belong to."""

import json
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import nn
from torch.utils.data import DataLoader


class Writer(BasePredictionWriter):
    def __init__(self, folder, interval):
        super().__init__(interval)
        self.folder = Path(folder)
        self.folder.mkdir()

    def write_on_batch_end(
        self,
        trainer,
        pl_module,
        prediction,
        batch_indices,
        batch,
        batch_idx,
        dataloader_idx,
    ):
        name = f"batch_{dataloader_idx}_{batch_idx}.pt"
        torch.save({"rows": batch_indices, "values": prediction}, self.folder / name)

    def write_on_epoch_end(self, trainer, pl_module, predictions, batch_indices):
        torch.save([predictions, batch_indices], self.folder / "epoch.pt")


class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2))

    def forward(self, x):
        return self.net(x)

    def predict_step(self, batch, batch_idx, dataloader_idx=0):
        assert not self.training
        assert not torch.is_grad_enabled()
        return {"scores": self(batch), "loader": dataloader_idx}


def quick(**flags):
    return L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, **flags
    )


if __name__ == "__main__":
    L.seed_everything(24)
    model = Model()
    first = DataLoader(torch.randn(10, 3), batch_size=4)
    second = DataLoader(torch.randn(5, 3), batch_size=4)
    writer = Writer("both", "batch_and_epoch")
    returned = quick(callbacks=[writer]).predict(model, [first, second])
    silent = quick(callbacks=[Writer("one", "batch")], limit_predict_batches=2)
    nothing = silent.predict(model, first, return_predictions=False)
    predictions, rows = torch.load("both/epoch.pt")
    batch = torch.load("both/batch_0_2.pt")
    single = quick().predict(model, first)
    print(
        json.dumps(
            {
                "shape": [[len(p["scores"]) for p in loader] for loader in returned],
                "loaders": [[p["loader"] for p in loader] for loader in returned],
                "sums": [
                    [p["scores"].double().sum().item() for p in loader]
                    for loader in predictions
                ],
                "rows": rows,
                "batch_rows": batch["rows"],
                "nothing": nothing,
                "single": [sorted(p) for p in single],
                "files": {
                    folder: sorted(p.name for p in Path(folder).iterdir())
                    for folder in ("both", "one")
                },
            }
        )
    )
