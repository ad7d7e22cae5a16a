"""`BackboneFinetuning` that thaws a pretrained backbone after two epochs."""

import json

import lightning as L
import torch
from lightning.pytorch.callbacks import BackboneFinetuning
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Transfer(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(5, 10), nn.BatchNorm1d(10), nn.ReLU())
        self.head = nn.Linear(10, 1)
        self.rates = []

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.mse_loss(self.head(self.backbone(x)), y)
        self.log("loss", loss, on_epoch=True, on_step=False)
        return loss

    def on_train_epoch_end(self):
        groups = self.trainer.optimizers[0].param_groups
        self.rates.append([group["lr"] for group in groups])

    def configure_optimizers(self):
        trainable = filter(lambda p: p.requires_grad, self.parameters())
        return torch.optim.Adam(trainable, lr=1e-2)


if __name__ == "__main__":
    L.seed_everything(9)
    x = torch.randn(96, 5)
    loader = DataLoader(
        TensorDataset(x, x.sum(1, keepdim=True)), batch_size=16, shuffle=True
    )
    model = Transfer()
    start = model.backbone[0].weight.detach().clone()
    finetuning = BackboneFinetuning(
        unfreeze_backbone_at_epoch=2,
        lambda_func=lambda epoch: 1.5,
        backbone_initial_ratio_lr=0.1,
        verbose=False,
    )
    trainer = L.Trainer(
        max_epochs=5,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[finetuning],
    )
    trainer.fit(model, loader)
    print(
        json.dumps(
            {
                "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
                "rates": model.rates,
                "backbone_moved": not torch.equal(start, model.backbone[0].weight),
                "weights": sum(
                    v.double().sum().item() for v in model.state_dict().values()
                ),
                "groups": [
                    len(g["params"]) for g in trainer.optimizers[0].param_groups
                ],
                "backbone_rate": finetuning.state_dict()["previous_backbone_lr"],
                "global_step": trainer.global_step,
            }
        )
    )
