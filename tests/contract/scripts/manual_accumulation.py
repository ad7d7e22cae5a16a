"""Manual optimization that steps every k batches, clips and steps its scheduler itself."""

import json

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Accumulating(L.LightningModule):
    def __init__(self, every=3):
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        self.norms = []

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        x, y = batch
        loss = nn.functional.mse_loss(self.net(x).squeeze(1), y)
        self.manual_backward(loss / self.hparams.every)
        full = (batch_idx + 1) % self.hparams.every == 0
        if full or self.trainer.is_last_batch:
            self.clip_gradients(
                optimizer, gradient_clip_val=0.3, gradient_clip_algorithm="norm"
            )
            self.norms.append(
                sum(p.grad.pow(2).sum().item() for p in self.parameters()) ** 0.5
            )
            optimizer.step()
            optimizer.zero_grad()
            self.lr_schedulers().step()
        self.log("loss", loss, on_step=True, on_epoch=True, prog_bar=True)
        return loss

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.last = outputs["loss"].item()

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.05)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.8)]


if __name__ == "__main__":
    L.seed_everything(56)
    x = torch.randn(42, 4)
    data = DataLoader(TensorDataset(x, x.sum(1)), batch_size=6, shuffle=True)
    model = Accumulating()
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        log_every_n_steps=1,
    )
    trainer.fit(model, data)
    print(
        json.dumps(
            {
                "metrics": {
                    **{k: v.item() for k, v in trainer.callback_metrics.items()},
                    "last": model.last,
                },
                "norms": model.norms,
                "steps": trainer.global_step,
                "rate": trainer.optimizers[0].param_groups[0]["lr"],
                "weights": model.net[0].weight.double().sum().item(),
                "file": trainer.checkpoint_callback.best_model_path.split("/")[-1],
            }
        )
    )
