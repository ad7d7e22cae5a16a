import lightgen_runtime as L
import torch
from torch import nn


class Net(L.LightningModule):
    def __init__(self, lr=0.1):
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.generator = nn.Linear(3, 3)
        self.discriminator = nn.Linear(3, 1)

    def training_step(self, batch, batch_idx):
        opt_g, opt_d = self.optimizers()
        loss = self.discriminator(self.generator(batch)).mean()
        self.manual_backward(loss)
        opt_g.step()
        opt_d.step()

    def configure_optimizers(self):
        generator_opt = torch.optim.RMSprop(self.generator.parameters(), lr=5e-5)
        critic_opt = torch.optim.RMSprop(self.discriminator.parameters(), lr=5e-5)
        return generator_opt, critic_opt
