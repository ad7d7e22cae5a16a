"""An exponential moving average of the weights, kept by a callback written by hand."""

import copy
import json

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class EMA(L.Callback):
    """Validates, tests and saves with averaged weights; trains with the others."""

    def __init__(self, decay=0.9):
        self.decay, self.average, self.backup = decay, None, None

    def on_fit_start(self, trainer, pl_module):
        if self.average is None:
            self.average = copy.deepcopy(pl_module.state_dict())

    @torch.no_grad()
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        for name, value in pl_module.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - self.decay)
            else:
                self.average[name].copy_(value)

    def swap_in(self, pl_module):
        self.backup = copy.deepcopy(pl_module.state_dict())
        pl_module.load_state_dict(self.average)

    def swap_out(self, pl_module):
        pl_module.load_state_dict(self.backup)
        self.backup = None

    def on_validation_start(self, trainer, pl_module):
        self.swap_in(pl_module)

    def on_validation_end(self, trainer, pl_module):
        self.swap_out(pl_module)

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        checkpoint["state_dict"] = copy.deepcopy(self.average)

    def on_train_end(self, trainer, pl_module):
        pl_module.load_state_dict(self.average)

    def state_dict(self):
        return {"decay": self.decay, "average": self.average}

    def load_state_dict(self, state_dict):
        self.average = state_dict["average"]


class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 1))

    def loss(self, batch):
        return nn.functional.mse_loss(self.net(batch[0]).squeeze(1), batch[1])

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


if __name__ == "__main__":
    L.seed_everything(45)
    x = torch.randn(64, 4)
    dataset = TensorDataset(x, x.sum(1))
    loader, val = DataLoader(dataset, 16), DataLoader(dataset, batch_size=32)
    flags = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    model, ema = Model(), EMA()
    trainer = L.Trainer(max_epochs=2, callbacks=[ema], **flags)
    trainer.fit(model, loader, val)
    path = trainer.checkpoint_callback.best_model_path
    saved = torch.load(path)["state_dict"]
    more = L.Trainer(max_epochs=3, callbacks=[EMA()], **flags)
    again = Model()
    more.fit(again, loader, val, ckpt_path=path)
    print(
        json.dumps(
            {
                "metrics": {
                    "first": trainer.callback_metrics["val_loss"].item(),
                    "second": more.callback_metrics["val_loss"].item(),
                },
                "saved": sum(v.double().sum().item() for v in saved.values()),
                "averaged": [
                    sum(v.double().sum().item() for v in m.state_dict().values())
                    for m in (model, again)
                ],
                "steps": [trainer.global_step, more.global_step],
            }
        )
    )
