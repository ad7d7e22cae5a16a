"""Gradient norms logged from `on_after_backward` and `on_before_optimizer_step`."""

import json

import lightning as L
import torch
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import grad_norm
from torch import nn
from torch.utils.data import DataLoader


class Watched(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(4, 6)
        self.head = nn.Linear(6, 1)

    def training_step(self, batch, batch_idx):
        loss = self.head(torch.tanh(self.encoder(batch))).exp().mean()
        self.log("loss", loss, prog_bar=True)
        return loss

    def on_after_backward(self):
        norms = [p.grad.norm() for p in self.parameters() if p.grad is not None]
        self.log("grad/after_backward", torch.stack(norms).norm(), on_epoch=True)

    def on_before_optimizer_step(self, optimizer):
        self.log_dict(grad_norm(self.encoder, norm_type=2))

    def on_before_zero_grad(self, optimizer):
        self.log("grad/rate", optimizer.param_groups[0]["lr"])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


if __name__ == "__main__":
    L.seed_everything(14)
    model = Watched()
    logger = CSVLogger("logs", name="", version="norms")
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=logger,
        log_every_n_steps=3,
        accumulate_grad_batches=2,
        gradient_clip_val=0.2,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(model, DataLoader(torch.randn(48, 4), 6))
    print(
        json.dumps(
            {
                "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
                "logged": sorted(trainer.logged_metrics),
                "bar": sorted(trainer.progress_bar_metrics),
                "weights": sum(p.double().sum().item() for p in model.parameters()),
                "global_step": trainer.global_step,
            }
        )
    )
