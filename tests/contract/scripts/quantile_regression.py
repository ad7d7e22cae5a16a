"""Quantiles with a plateau schedule, early stopping and the best file at the end."""

import json

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split


class Quantiles(L.LightningModule):
    def __init__(self, levels=(0.1, 0.5, 0.9), lr=0.3):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Linear(3, len(levels))
        self.register_buffer("levels", torch.tensor(levels))

    def forward(self, x):
        return self.net(x).sort(dim=1).values

    def pinball(self, batch):
        x, y = batch
        error = y.unsqueeze(1) - self(x)
        return torch.maximum(self.levels * error, (self.levels - 1) * error).mean()

    def training_step(self, batch, batch_idx):
        loss = self.pinball(batch)
        self.log("train_pinball", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        low, _, high = self(x).unbind(1)
        self.log("val_pinball", self.pinball(batch), prog_bar=True)
        self.log("coverage", ((low <= y) & (y <= high)).float().mean())

    def test_step(self, batch, batch_idx):
        self.validation_step(batch, batch_idx)

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=self.hparams.lr)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=0.3, patience=1, threshold=0.02
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": scheduler,
            "monitor": "val_pinball",
        }


if __name__ == "__main__":
    L.seed_everything(61)
    x = torch.randn(90, 3)
    y = x[:, 0] * 2 + torch.randn(90) * 0.5
    fit, val = random_split(TensorDataset(x, y), [70, 20])
    stopping = L.pytorch.callbacks.EarlyStopping(
        "val_pinball", patience=3, min_delta=0.01, mode="min"
    )
    trainer = L.Trainer(
        max_epochs=40,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        callbacks=[
            stopping,
            L.pytorch.callbacks.ModelCheckpoint(
                monitor="val_pinball", save_last="link"
            ),
        ],
    )
    model = Quantiles()
    trainer.fit(model, DataLoader(fit, 14, shuffle=True), DataLoader(val, 10))
    callback = trainer.checkpoint_callback
    best = Quantiles.load_from_checkpoint(callback.best_model_path)
    fitted = {k: v.item() for k, v in trainer.callback_metrics.items()}
    stopped = [stopping.stopped_epoch, stopping.wait_count]
    tested = trainer.test(dataloaders=DataLoader(val, 10), verbose=False)
    print(
        json.dumps(
            {
                "metrics": {
                    "fit": fitted,
                    "test": tested,
                    "best": callback.best_model_score.item(),
                    "stopping": stopping.best_score.item(),
                },
                "stopped": stopped,
                "epochs": [trainer.current_epoch, trainer.global_step],
                "rate": trainer.optimizers[0].param_groups[0]["lr"],
                "file": callback.best_model_path.split("/")[-1],
                "levels": [round(level, 4) for level in best.levels.tolist()],
                "weights": best.net.weight.double().sum().item(),
                "hparams": list(best.hparams.levels),
            }
        )
    )
