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
        lr = self.hparams.lr
        b1, b2 = 0.5, 0.999

        opt_g = torch.optim.Adam(self.generator.parameters(), lr=lr, betas=(b1, b2))
        opt_d = torch.optim.Adam(self.discriminator.parameters(), lr=lr, betas=(b1, b2))
        sched_g = torch.optim.lr_scheduler.ExponentialLR(opt_g, 0.95)
        sched_d = torch.optim.lr_scheduler.ExponentialLR(opt_d, 0.9)
        return [opt_g, opt_d], [sched_g, sched_d]
