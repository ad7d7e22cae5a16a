import lightgen_runtime as L
import torch
from torch import nn


class Net(L.LightningModule):
    def __init__(self, lr=0.1):
        super().__init__()
        self.save_hyperparameters()
        self.generator = nn.Linear(3, 3)
        self.discriminator = nn.Linear(3, 1)

    def training_step(self, batch, batch_idx):
        fake = self.generator(batch)
        return {
            "generator": -self.discriminator(fake).mean(),
            "discriminator": self.discriminator(fake.detach()).mean(),
        }

    def configure_optimizers(self):
        return {
            "generator": torch.optim.Adam(self.generator.parameters(), lr=self.hparams.lr),
            "discriminator": torch.optim.Adam(self.discriminator.parameters(), lr=self.hparams.lr),
        }
