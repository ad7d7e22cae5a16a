"""WGAN-GP: several critic steps for one generator step, with a gradient penalty."""

import json

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader


class WGAN(L.LightningModule):
    def __init__(self, n_critic=3, weight=5.0):
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(3, 12), nn.ReLU(), nn.Linear(12, 2))
        self.critic = nn.Sequential(nn.Linear(2, 12), nn.ReLU(), nn.Linear(12, 1))

    def penalty(self, real, fake):
        share = torch.rand(len(real), 1, device=self.device)
        mixed = (share * real + (1 - share) * fake).requires_grad_(True)
        (gradient,) = torch.autograd.grad(
            self.critic(mixed).sum(), mixed, create_graph=True
        )
        return (gradient.norm(dim=1) - 1).pow(2).mean()

    def training_step(self, batch, batch_idx):
        g_opt, c_opt = self.optimizers(use_pl_optimizer=True)
        fake = self.generator(torch.randn(len(batch), 3, device=self.device))
        distance = self.critic(fake.detach()).mean() - self.critic(batch).mean()
        penalty = self.penalty(batch, fake.detach())
        c_opt.zero_grad()
        self.manual_backward(distance + self.hparams.weight * penalty)
        c_opt.step()
        self.log("critic/distance", distance, on_step=False, on_epoch=True)
        self.log("critic/penalty", penalty, on_step=False, on_epoch=True)

        if (batch_idx + 1) % self.hparams.n_critic == 0:
            loss = -self.critic(fake).mean()
            g_opt.zero_grad()
            self.manual_backward(loss)
            g_opt.step()
            self.log("generator/loss", loss, prog_bar=True)

    def configure_optimizers(self):
        return [
            torch.optim.RMSprop(self.generator.parameters(), lr=1e-3),
            torch.optim.RMSprop(self.critic.parameters(), lr=5e-3),
        ]


if __name__ == "__main__":
    L.seed_everything(83)
    model = WGAN()
    trainer = L.Trainer(
        max_epochs=3,
        max_steps=30,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
    )
    points = torch.randn(256, 2) * torch.tensor([2.0, 0.5])
    trainer.fit(model, DataLoader(points, 32, shuffle=True))
    resumed = WGAN.load_from_checkpoint(trainer.checkpoint_callback.best_model_path)
    print(
        json.dumps(
            {
                "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
                "weights": sum(p.double().sum().item() for p in model.parameters()),
                "loaded": sum(p.double().sum().item() for p in resumed.parameters()),
                "state": [trainer.global_step, trainer.current_epoch],
                "checkpoint": trainer.checkpoint_callback.best_model_path.split("/")[
                    -1
                ],
            }
        )
    )
