import lightgen_runtime as L
import logging

import torch
from torch import nn

log = logging.getLogger(__name__)


class Net(L.LightningModule):
    def __init__(self, lr=0.1):
        super().__init__()
        self.save_hyperparameters()
        self.backbone = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
        self.head = nn.Linear(3, 2)

    def training_step(self, batch, batch_idx):
        loss = self.head(self.backbone(batch)).pow(2).mean()
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.head(self.backbone(batch)).pow(2).mean())

    def configure_optimizers(self):
        log.info("making optimizers")  # mine
        opt = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        self.kept = opt  # mine
        if self.hparams.lr < 0:  # mine
            raise ValueError("no rate below 0")  # mine
        sched = torch.optim.lr_scheduler.ExponentialLR(opt, gamma=0.9)
        assert sched is not None  # mine
        # a pair of lists
        return [opt], [sched]
