"""A finished fit goes on for more epochs, from its file and in the same program."""

import json

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Model(L.LightningModule):
    def __init__(self, lr=0.1):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1))
        self.epochs = []

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.mse_loss(self.net(x), y)
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def on_train_epoch_start(self):
        self.epochs.append([self.current_epoch, self.global_step])

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=self.hparams.lr, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)]


def trainer(max_epochs, **flags):
    return L.Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **flags,
    )


def state(trainer, model):
    return {
        "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
        "epochs": model.epochs,
        "counters": [trainer.current_epoch, trainer.global_step],
        "rate": trainer.optimizers[0].param_groups[0]["lr"],
        "weights": model.net[0].weight.double().sum().item(),
    }


if __name__ == "__main__":
    L.seed_everything(64)
    x = torch.randn(24, 3)
    data = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=6)
    first, model = trainer(2), Model()
    first.fit(model, data)
    path = first.checkpoint_callback.best_model_path
    result = {"first": state(first, model)}

    longer, again = trainer(5, enable_checkpointing=False), Model(lr=0.7)
    longer.fit(again, data, ckpt_path=path)
    result["longer"] = state(longer, again)

    nothing, same = trainer(2, enable_checkpointing=False), Model()
    nothing.fit(same, data, ckpt_path=path)
    # Whether the metrics of the file are there again is left open.
    result["nothing"] = {**state(nothing, same), "metrics": {}}

    anew = trainer(2, enable_checkpointing=False)
    anew.fit(model, data)
    result["anew"] = state(anew, model)
    print(json.dumps(result))
