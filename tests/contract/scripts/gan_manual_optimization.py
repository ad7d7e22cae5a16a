"""A GAN of 2-d points with two optimizers in manual optimization."""

import json

import lightning as L
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.utils.data import DataLoader


class GAN(L.LightningModule):
    def __init__(self, latent_dim=4, lr=2e-3):
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.generator = nn.Sequential(
            nn.Linear(latent_dim, 16), nn.ReLU(), nn.Linear(16, 2)
        )
        self.discriminator = nn.Sequential(
            nn.Linear(2, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1)
        )

    def forward(self, z):
        return self.generator(z)

    def training_step(self, real):
        opt_g, opt_d = self.optimizers()
        z = torch.randn(real.size(0), self.hparams.latent_dim, device=self.device)
        ones = torch.ones(real.size(0), 1, device=self.device)

        fake = self(z)
        loss_d = bce(self.discriminator(real), ones)
        loss_d = loss_d + bce(self.discriminator(fake.detach()), torch.zeros_like(ones))
        opt_d.zero_grad()
        self.manual_backward(loss_d)
        opt_d.step()

        loss_g = bce(self.discriminator(fake), ones)
        opt_g.zero_grad()
        self.manual_backward(loss_g)
        opt_g.step()
        self.log_dict({"g_loss": loss_g, "d_loss": loss_d}, prog_bar=True)

    def on_train_epoch_end(self):
        for scheduler in self.lr_schedulers():
            scheduler.step()

    def configure_optimizers(self):
        opt_g = torch.optim.Adam(self.generator.parameters(), self.hparams.lr)
        opt_d = torch.optim.Adam(self.discriminator.parameters(), self.hparams.lr)
        schedulers = [
            torch.optim.lr_scheduler.ExponentialLR(o, 0.9) for o in (opt_g, opt_d)
        ]
        return [opt_g, opt_d], schedulers


if __name__ == "__main__":
    L.seed_everything(42)
    angles = torch.rand(512) * 6.2832
    points = torch.stack([angles.cos(), angles.sin()], 1)
    model = GAN()
    trainer = L.Trainer(
        max_epochs=4,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
    )
    trainer.fit(model, DataLoader(points, batch_size=64, shuffle=True))
    print(
        json.dumps(
            {
                "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
                "generator": sum(
                    p.double().sum().item() for p in model.generator.parameters()
                ),
                "discriminator": sum(
                    p.double().sum().item() for p in model.discriminator.parameters()
                ),
                "rates": [o.param_groups[0]["lr"] for o in trainer.optimizers],
                "global_step": trainer.global_step,
                "current_epoch": trainer.current_epoch,
                "checkpoint": trainer.checkpoint_callback.best_model_path.split("/")[
                    -1
                ],
            }
        )
    )
