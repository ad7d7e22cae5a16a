"""A callback that doubles the batch size of a datamodule whose loaders are made anew."""

import json

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset


class Data(L.LightningDataModule):
    def __init__(self, batch_size=4):
        super().__init__()
        self.save_hyperparameters()
        self.batch_size = batch_size
        self.made = []

    def setup(self, stage):
        generator = torch.Generator().manual_seed(3)
        x = torch.randn(32, 4, generator=generator)
        self.data = TensorDataset(x, x.mean(1, keepdim=True))

    def train_dataloader(self):
        self.made.append(["train", self.batch_size])
        order = RandomSampler(self.data, generator=torch.Generator().manual_seed(5))
        return DataLoader(self.data, batch_size=self.batch_size, sampler=order)

    def val_dataloader(self):
        self.made.append(["val", self.batch_size])
        return DataLoader(self.data, batch_size=self.batch_size)

    def state_dict(self):
        return {"batch_size": self.batch_size}

    def load_state_dict(self, state_dict):
        self.batch_size = state_dict["batch_size"]


class Doubling(L.Callback):
    def __init__(self, every, most):
        self.every, self.most = every, most

    def on_train_epoch_end(self, trainer, pl_module):
        data = trainer.datamodule
        if (trainer.current_epoch + 1) % self.every == 0:
            data.batch_size = min(self.most, data.batch_size * 2)


class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.sizes = []

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.sizes.append(len(x))
        loss = nn.functional.mse_loss(self.layer(x), y)
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val", nn.functional.mse_loss(self.layer(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


if __name__ == "__main__":
    L.seed_everything(59)
    data, model = Data(), Model()
    trainer = L.Trainer(
        max_epochs=5,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        callbacks=[Doubling(every=2, most=16)],
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
    )
    trainer.fit(model, datamodule=data)
    state = torch.load(trainer.checkpoint_callback.best_model_path)["Data"]
    print(
        json.dumps(
            {
                "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
                "made": data.made,
                "sizes": model.sizes,
                "steps": trainer.global_step,
                "batches": trainer.num_training_batches,
                "state": state,
                "weights": model.layer.weight.double().sum().item(),
            }
        )
    )
