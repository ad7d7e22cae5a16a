"""A callback that scales inputs: what it learned is in the checkpoint that is tested."""

import json

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader


class Scaler(L.Callback):
    """Keeps a running mean of the training inputs and takes it away from test inputs."""

    def __init__(self):
        self.mean, self.count = torch.zeros(3), 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.mean += (batch.mean(0) - self.mean) / (self.count + 1)
        self.count += 1

    def on_test_batch_start(
        self, trainer, pl_module, batch, batch_idx, dataloader_idx=0
    ):
        batch -= self.mean

    def state_dict(self):
        return {"mean": self.mean, "count": self.count}

    def load_state_dict(self, state_dict):
        self.mean, self.count = state_dict["mean"], state_dict["count"]


class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).pow(2).mean()

    def test_step(self, batch, batch_idx):
        self.log("test_mean", batch.mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(callback):
    return L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        callbacks=callback,
        enable_progress_bar=False,
    )


if __name__ == "__main__":
    L.seed_everything(38)
    data = torch.randn(24, 3) + 5
    fitting = trainer(Scaler())
    fitting.fit(Model(), DataLoader(data, batch_size=6))
    path = fitting.checkpoint_callback.best_model_path

    fresh = Scaler()
    tested = trainer(fresh).test(
        Model(), DataLoader(data, batch_size=8), ckpt_path=path, verbose=False
    )
    print(
        json.dumps(
            {
                "metrics": tested,
                "count": fresh.count,
                "mean": fresh.mean.double().sum().item(),
            }
        )
    )
