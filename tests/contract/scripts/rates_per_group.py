"""An `optimizer_step` with a schedule of its own for each parameter group."""

import json
import math

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class LayerWise(L.LightningModule):
    def __init__(self, lr=0.1, decay=0.5, warm_up=4, total=18):
        super().__init__()
        self.save_hyperparameters()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.head = nn.Linear(4, 1)
        self.rates = []

    def forward(self, x):
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return self.head(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.mse_loss(self(x), y)

    def factor(self, step, group):
        delay = group["delay"]
        if step < delay:
            return 0.0
        if step < delay + self.hparams.warm_up:
            return (step - delay + 1) / self.hparams.warm_up
        part = (step - delay - self.hparams.warm_up) / self.hparams.total
        return 0.5 * (1 + math.cos(math.pi * min(1.0, part)))

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure):
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * self.factor(self.trainer.global_step, group)
        self.rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step(closure=optimizer_closure)

    def optimizer_zero_grad(self, epoch, batch_idx, optimizer):
        optimizer.zero_grad(set_to_none=False)

    def configure_optimizers(self):
        lr, decay = self.hparams.lr, self.hparams.decay
        groups = [
            {
                "params": list(layer.parameters()),
                "base": lr * decay ** (len(self.layers) - depth),
                "delay": len(self.layers) - depth,
            }
            for depth, layer in enumerate(self.layers)
        ]
        head = {"params": list(self.head.parameters()), "base": lr, "delay": 0}
        return torch.optim.SGD([*groups, head], lr=lr, momentum=0.9, nesterov=True)


if __name__ == "__main__":
    L.seed_everything(57)
    x = torch.randn(30, 4)
    data = DataLoader(TensorDataset(x, x[:, :1].sin()), batch_size=5, shuffle=True)
    model = LayerWise()
    trainer = L.Trainer(
        max_epochs=6,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        accumulate_grad_batches=2,
        gradient_clip_val=1.0,
    )
    trainer.fit(model, data)
    print(
        json.dumps(
            {
                "rates": model.rates,
                "steps": trainer.global_step,
                "weights": sum(p.double().sum().item() for p in model.parameters()),
            }
        )
    )
