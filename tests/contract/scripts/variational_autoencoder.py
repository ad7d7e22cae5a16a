"""A VAE whose KL weight grows with the global step, on digits."""

import json

import lightning as L
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader


class VAE(L.LightningModule):
    def __init__(self, latent_dim=3, warmup_steps=20):
        super().__init__()
        self.save_hyperparameters()
        self.encoder = nn.Sequential(nn.Linear(64, 32), nn.ReLU())
        self.mean = nn.Linear(32, latent_dim)
        self.log_var = nn.Linear(32, latent_dim)
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, 32), nn.ReLU(), nn.Linear(32, 64), nn.Sigmoid()
        )

    def forward(self, x):
        hidden = self.encoder(x)
        mean, log_var = self.mean(hidden), self.log_var(hidden)
        z = mean + torch.randn_like(mean) * torch.exp(log_var / 2)
        return self.decoder(z), mean, log_var

    def _losses(self, x):
        reconstruction, mean, log_var = self(x)
        error = F.binary_cross_entropy(reconstruction, x, reduction="sum") / len(x)
        kl = -0.5 * (1 + log_var - mean.pow(2) - log_var.exp()).sum() / len(x)
        return error, kl

    def training_step(self, batch, batch_idx):
        error, kl = self._losses(batch)
        weight = min(1.0, self.global_step / self.hparams.warmup_steps)
        loss = error + weight * kl
        self.log_dict(
            {"train/loss": loss, "train/kl": kl, "train/kl_weight": weight},
            on_step=True,
            on_epoch=True,
        )
        return {"loss": loss, "kl": kl.detach()}

    def validation_step(self, batch, batch_idx):
        error, kl = self._losses(batch)
        self.log("val/elbo", -(error + kl), on_epoch=True)

    @torch.no_grad()
    def sample(self, count):
        return self.decoder(torch.randn(count, self.hparams.latent_dim))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


if __name__ == "__main__":
    L.seed_everything(5)
    pixels = torch.tensor(load_digits().data / 16, dtype=torch.float32)
    model = VAE()
    trainer = L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        gradient_clip_val=5.0,
    )
    trainer.fit(
        model,
        DataLoader(pixels[:500], batch_size=50, shuffle=True),
        DataLoader(pixels[500:700], batch_size=64),
    )
    print(
        json.dumps(
            {
                "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
                "logged": sorted(trainer.logged_metrics),
                "weights": sum(p.double().sum().item() for p in model.parameters()),
                "sample": model.sample(4).double().sum().item(),
                "global_step": trainer.global_step,
            }
        )
    )
