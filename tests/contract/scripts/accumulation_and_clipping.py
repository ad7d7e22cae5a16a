"""Large effective batches by accumulation, with clipped gradients and a step schedule."""

import json

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Accumulating(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1))
        self.norms, self.steps = [], []

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.smooth_l1_loss(self.net(x).squeeze(1), y)
        self.log("loss", loss, on_step=True, on_epoch=True)
        self.steps.append(self.global_step)
        return loss

    def configure_gradient_clipping(
        self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None
    ):
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        grads = torch.cat([p.grad.flatten() for p in self.parameters()])
        self.norms.append([grads.norm().item(), grads.abs().max().item()])

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=5)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


def train(algorithm, clip, accumulate):
    L.seed_everything(77)
    x = torch.randn(96, 5)
    loader = DataLoader(TensorDataset(x, 3 * x.sum(1)), batch_size=8, shuffle=True)
    model = Accumulating()
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=clip,
        gradient_clip_algorithm=algorithm,
    )
    trainer.fit(model, loader)
    return {
        "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
        "norms": model.norms,
        "steps": model.steps,
        "rate": trainer.optimizers[0].param_groups[0]["lr"],
        "weights": sum(p.double().sum().item() for p in model.parameters()),
        "global_step": trainer.global_step,
        "planned": trainer.estimated_stepping_batches,
    }


if __name__ == "__main__":
    # 12 batches an epoch: every window is full.
    print(
        json.dumps(
            {
                "norm": train("norm", 0.5, 4),
                "value": train("value", 0.05, 3),
                "none": train(None, None, 2),
            }
        )
    )
