"""A conditional GAN that toggles its two optimizers around each part of the step."""

import json

import lightning as L
import torch
from torch import nn
from torch.nn.functional import mse_loss, one_hot
from torch.utils.data import DataLoader, TensorDataset


class ConditionalGAN(L.LightningModule):
    def __init__(self, classes=3, latent=4):
        super().__init__()
        self.automatic_optimization = False
        self.classes, self.latent = classes, latent
        self.generator = nn.Sequential(
            nn.Linear(latent + classes, 16), nn.Tanh(), nn.Linear(16, 2)
        )
        self.discriminator = nn.Sequential(
            nn.Linear(2 + classes, 16), nn.LeakyReLU(), nn.Linear(16, 1)
        )
        self.toggled = []

    def discriminate(self, x, condition):
        return self.discriminator(torch.cat([x, condition], 1))

    def training_step(self, batch, batch_idx):
        real, label = batch
        condition = one_hot(label, self.classes).float()
        noise = torch.randn(len(real), self.latent).type_as(real)
        opt_g, opt_d = self.optimizers()

        self.toggle_optimizer(opt_g)
        self.toggled.append(sum(p.requires_grad for p in self.parameters()))
        fake = self.generator(torch.cat([noise, condition], 1))
        score = self.discriminate(fake, condition)
        g_loss = mse_loss(score, torch.ones_like(score))
        self.log("g_loss", g_loss, prog_bar=True)
        self.manual_backward(g_loss)
        self.clip_gradients(opt_g, gradient_clip_val=0.5)
        opt_g.step()
        opt_g.zero_grad()
        self.untoggle_optimizer(opt_g)

        with opt_d.toggle_model():
            self.toggled.append(sum(p.requires_grad for p in self.parameters()))
            true_score = self.discriminate(real, condition)
            fake_score = self.discriminate(fake.detach(), condition)
            d_loss = mse_loss(true_score, torch.ones_like(true_score)) / 2
            d_loss = d_loss + mse_loss(fake_score, torch.zeros_like(fake_score)) / 2
            self.log("d_loss", d_loss, prog_bar=True)
            self.manual_backward(d_loss)
            opt_d.step()
            opt_d.zero_grad()

    def configure_optimizers(self):
        opt_g = torch.optim.Adam(self.generator.parameters(), lr=1e-3, betas=(0.5, 0.9))
        opt_d = torch.optim.Adam(self.discriminator.parameters(), lr=1e-3)
        return opt_g, opt_d


if __name__ == "__main__":
    L.seed_everything(11, workers=True)
    labels = torch.randint(3, (300,))
    points = labels.unsqueeze(1) + 0.1 * torch.randn(300, 2)
    loader = DataLoader(TensorDataset(points, labels), batch_size=50, shuffle=True)
    model = ConditionalGAN()
    trainer = L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(model, loader)
    print(
        json.dumps(
            {
                "metrics": {k: v.item() for k, v in trainer.logged_metrics.items()},
                "toggled": model.toggled,
                "trainable": all(p.requires_grad for p in model.parameters()),
                "weights": sum(p.double().sum().item() for p in model.parameters()),
                "global_step": trainer.global_step,
            }
        )
    )
