"""A mixture of experts: one optimizer for each expert, several schedulers, by hand."""

import json

import lightning as L
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, TensorDataset


class Mixture(L.LightningModule):
    def __init__(self, experts=3):
        super().__init__()
        self.automatic_optimization = False
        self.gate = nn.Linear(4, experts)
        self.experts = nn.ModuleList(nn.Linear(4, 1) for _ in range(experts))
        self.rates = []

    def forward(self, x):
        weights = self.gate(x).softmax(1)
        outputs = torch.cat([expert(x) for expert in self.experts], 1)
        return (weights * outputs).sum(1), weights

    def training_step(self, batch, batch_idx):
        x, y = batch
        prediction, weights = self(x)
        balance = weights.mean(0).pow(2).sum()
        loss = nn.functional.mse_loss(prediction, y) + 0.1 * balance
        optimizers = self.optimizers()
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(loss)
        optimizers[0].step()
        # One expert a batch learns.
        optimizers[1 + batch_idx % len(self.experts)].step()
        self.log_dict({"loss": loss, "balance": balance}, on_step=True, on_epoch=True)
        schedulers = self.lr_schedulers()
        if self.trainer.is_last_batch:
            schedulers[0].step()
        if (batch_idx + 1) % 2 == 0:
            schedulers[1].step()

    def validation_step(self, batch, batch_idx):
        self.log("val_mse", nn.functional.mse_loss(self(batch[0])[0], batch[1]))

    def on_validation_epoch_end(self):
        if not self.trainer.sanity_checking:
            self.rates.append([o.param_groups[0]["lr"] for o in self.optimizers()])

    def on_train_epoch_end(self):
        plateau = self.lr_schedulers()[2]
        if isinstance(plateau, ReduceLROnPlateau):
            plateau.step(self.trainer.callback_metrics["loss_epoch"])

    def configure_optimizers(self):
        gate = torch.optim.Adam(self.gate.parameters(), lr=1e-2)
        experts = [torch.optim.SGD(e.parameters(), lr=0.1) for e in self.experts]
        schedulers = [
            StepLR(gate, 1, gamma=0.5),
            StepLR(experts[0], 2, gamma=0.9),
            ReduceLROnPlateau(experts[1], patience=0, threshold=1.0),
        ]
        return [gate, *experts], schedulers


if __name__ == "__main__":
    L.seed_everything(33)
    x = torch.randn(80, 4)
    dataset = TensorDataset(x, torch.where(x[:, 0] > 0, x.sum(1), -x[:, 1]))
    model = Mixture()
    trainer = L.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_progress_bar=False
    )
    trainer.fit(
        model, DataLoader(dataset, 16, shuffle=True), DataLoader(dataset, batch_size=40)
    )
    print(
        json.dumps(
            {
                "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
                "rates": model.rates,
                "final": [o.param_groups[0]["lr"] for o in trainer.optimizers],
                "weights": sum(p.double().sum().item() for p in model.parameters()),
                "global_step": trainer.global_step,
                "checkpoint": trainer.checkpoint_callback.best_model_path.split("/")[
                    -1
                ],
            }
        )
    )
