"""A progress bar without the version, and one from scratch that only keeps lines."""

import json

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader


class NoVersion(L.pytorch.callbacks.TQDMProgressBar):
    def get_metrics(self, trainer, pl_module):
        items = super().get_metrics(trainer, pl_module)
        items.pop("v_num", None)
        items["rate"] = f"{trainer.optimizers[0].param_groups[0]['lr']:.3f}"
        self.seen = items
        return items


class Lines(L.pytorch.callbacks.ProgressBar):
    def __init__(self):
        super().__init__()
        self.enabled = True
        self.lines = []

    @property
    def is_enabled(self):
        return self.enabled

    @property
    def is_disabled(self):
        return not self.enabled

    def disable(self):
        self.enabled = False

    def enable(self):
        self.enabled = True

    def on_train_start(self, trainer, pl_module):
        super().on_train_start(trainer, pl_module)
        self.lines.append(["start", trainer.max_epochs])

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self.enabled and (batch_idx + 1) % 2 == 0:
            self.lines.append(
                [trainer.current_epoch, batch_idx, self.total_train_batches]
            )

    def on_validation_epoch_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.lines.append(["val", self.total_val_batches])

    def print(self, *args, **kwargs):
        self.lines.append(["printed", *args])


class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).pow(2).mean()
        self.log("loss", loss, prog_bar=True)
        self.log("hidden", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val", self.layer(batch).abs().mean(), prog_bar=True)

    def on_train_epoch_end(self):
        self.print("epoch", self.current_epoch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


if __name__ == "__main__":
    L.seed_everything(58)
    data = torch.randn(20, 3)
    result = {}
    for bar in (NoVersion(refresh_rate=1), Lines()):
        trainer = L.Trainer(
            max_epochs=2,
            accelerator="cpu",
            logger=L.pytorch.loggers.CSVLogger("logs"),
            callbacks=[bar],
        )
        trainer.fit(Model(), DataLoader(data, 4), DataLoader(data, 8))
        assert trainer.progress_bar_callback is bar
        result[type(bar).__name__] = {"shown": sorted(trainer.progress_bar_metrics)}
        if isinstance(bar, Lines):
            result["Lines"]["lines"] = bar.lines
        else:
            result["NoVersion"]["items"] = sorted(bar.seen)
            result["NoVersion"]["rate"] = bar.seen["rate"]
    print(json.dumps(result))
