"""Two generators and two critics that translate between domains and back."""

import itertools
import json

import lightning as L
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset


def network(out):
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, out))


class CycleGAN(L.LightningModule):
    def __init__(self, lr=2e-3, cycle_weight=10.0, decay_from=1):
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.a_to_b, self.b_to_a = network(4), network(4)
        self.critic_a, self.critic_b = network(1), network(1)

    def adversarial(self, scores, real):
        return F.mse_loss(scores, torch.full_like(scores, float(real)))

    def generator_loss(self, a, b):
        fake_a, fake_b = self.b_to_a(b), self.a_to_b(a)
        fooled = self.adversarial(self.critic_a(fake_a), True)
        fooled = fooled + self.adversarial(self.critic_b(fake_b), True)
        cycle = F.l1_loss(self.b_to_a(fake_b), a) + F.l1_loss(self.a_to_b(fake_a), b)
        identity = F.l1_loss(self.b_to_a(a), a) + F.l1_loss(self.a_to_b(b), b)
        return fooled + self.hparams.cycle_weight * (cycle + 0.5 * identity)

    def critic_loss(self, a, b):
        loss = 0.0
        for critic, real, fake in (
            (self.critic_a, a, self.b_to_a(b)),
            (self.critic_b, b, self.a_to_b(a)),
        ):
            loss = loss + self.adversarial(critic(real), True)
            loss = loss + self.adversarial(critic(fake.detach()), False)
        return loss / 2

    def training_step(self, batch, batch_idx):
        opt_g, opt_d = self.optimizers()
        self.toggle_optimizer(opt_g)
        loss = self.generator_loss(*batch)
        opt_g.zero_grad()
        self.manual_backward(loss)
        opt_g.step()
        self.untoggle_optimizer(opt_g)

        self.toggle_optimizer(opt_d)
        d_loss = self.critic_loss(*batch)
        opt_d.zero_grad()
        self.manual_backward(d_loss)
        opt_d.step()
        self.untoggle_optimizer(opt_d)
        self.log_dict({"g": loss, "d": d_loss}, on_epoch=True, prog_bar=True)

    def on_train_epoch_end(self):
        for scheduler in self.lr_schedulers():
            scheduler.step()

    def validation_step(self, batch, batch_idx):
        a, _ = batch
        self.log("cycle", F.l1_loss(self.b_to_a(self.a_to_b(a)), a))

    def configure_optimizers(self):
        generators = itertools.chain(self.a_to_b.parameters(), self.b_to_a.parameters())
        critics = itertools.chain(
            self.critic_a.parameters(), self.critic_b.parameters()
        )
        optimizers = [
            torch.optim.Adam(parameters, lr=self.hparams.lr, betas=(0.5, 0.999))
            for parameters in (generators, critics)
        ]
        schedulers = [
            torch.optim.lr_scheduler.LambdaLR(
                optimizer,
                lambda epoch: 1.0 - max(0, epoch - self.hparams.decay_from) / 4,
            )
            for optimizer in optimizers
        ]
        return optimizers, schedulers


if __name__ == "__main__":
    L.seed_everything(51)
    data = TensorDataset(torch.randn(24, 4), torch.randn(24, 4) + 1)
    model = CycleGAN()
    trainer = L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
    )
    trainer.fit(
        model, DataLoader(data, batch_size=8, shuffle=True), DataLoader(data, 8)
    )
    print(
        json.dumps(
            {
                "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
                "weights": sum(p.double().sum().item() for p in model.parameters()),
                "rates": [o.param_groups[0]["lr"] for o in trainer.optimizers],
                "steps": trainer.global_step,
            }
        )
    )
