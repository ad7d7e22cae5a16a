"""A datamodule that prepares a file, splits in `setup` and keeps its own state."""

import json
from pathlib import Path

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split


class FileDataModule(L.LightningDataModule):
    def __init__(self, folder="data", batch_size=16, val_share=0.25, shuffle=True):
        super().__init__()
        self.save_hyperparameters()
        self.calls = []

    def prepare_data(self):
        self.calls.append("prepare_data")
        folder = Path(self.hparams.folder)
        folder.mkdir(exist_ok=True)
        x = torch.randn(160, 5, generator=torch.Generator().manual_seed(4))
        torch.save((x, x @ torch.arange(5.0)), folder / "table.pt")

    def setup(self, stage):
        self.calls.append(["setup", stage])
        x, y = torch.load(Path(self.hparams.folder) / "table.pt")
        whole = TensorDataset(x, y)
        if stage == "fit":
            val = int(128 * self.hparams.val_share)
            fit = torch.utils.data.Subset(whole, range(128))
            self.train_set, self.val_set = random_split(
                fit, [128 - val, val], torch.Generator().manual_seed(1)
            )
        if stage in ("test", "predict"):
            self.test_set = torch.utils.data.Subset(whole, range(128, 160))

    def train_dataloader(self):
        return DataLoader(
            self.train_set,
            batch_size=self.hparams.batch_size,
            shuffle=self.hparams.shuffle,
        )

    def val_dataloader(self):
        return DataLoader(self.val_set, batch_size=self.hparams.batch_size)

    def test_dataloader(self):
        return DataLoader(self.test_set, batch_size=self.hparams.batch_size)

    def predict_dataloader(self):
        return self.test_dataloader()

    def teardown(self, stage):
        self.calls.append(["teardown", stage])

    def state_dict(self):
        return {"seen": self.trainer.global_step}

    def load_state_dict(self, state):
        self.calls.append(f"load {state['seen']}")


class Linear(L.LightningModule):
    def __init__(self, lr=0.05):
        super().__init__()
        self.save_hyperparameters()
        self.layer = nn.Linear(5, 1)

    def forward(self, x):
        return self.layer(x).squeeze(1)

    def loss(self, batch):
        return nn.functional.mse_loss(self(batch[0]), batch[1])

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch))

    def test_step(self, batch, batch_idx):
        self.log("test_loss", self.loss(batch))

    def predict_step(self, batch, batch_idx):
        return self(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)


if __name__ == "__main__":
    L.seed_everything(8)
    flags = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    datamodule, model = FileDataModule(), Linear()
    trainer = L.Trainer(max_epochs=2, **flags)
    trainer.fit(model, datamodule=datamodule)
    best = trainer.checkpoint_callback.best_model_path
    tested = trainer.test(model, datamodule)
    predicted = torch.cat(trainer.predict(model, datamodule=datamodule))

    content = torch.load(best)
    again = FileDataModule.load_from_checkpoint(best, shuffle=False)
    more = L.Trainer(max_epochs=3, **flags)
    more.fit(Linear(), datamodule=again, ckpt_path=best)
    print(
        json.dumps(
            {
                "metrics": {
                    "test": tested,
                    "val": more.callback_metrics["val_loss"].item(),
                },
                "predicted": predicted.double().sum().item(),
                "calls": datamodule.calls,
                "calls_again": again.calls,
                "hparams": dict(again.hparams),
                "stored": content["datamodule_hyper_parameters"],
                "state": content["FileDataModule"],
                "steps": [trainer.global_step, more.global_step],
                "weights": more.model.layer.weight.double().sum().item(),
            }
        )
    )
