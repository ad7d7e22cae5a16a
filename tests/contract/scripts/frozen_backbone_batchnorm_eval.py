"""Fine-tuning a head on a frozen backbone whose BatchNorm stays in evaluation mode."""

import json

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def pretrained_backbone():
    torch.manual_seed(100)
    return nn.Sequential(
        nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.3)
    )


class FineTuner(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.backbone = pretrained_backbone()
        self.head = nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
        for parameter in self.backbone.parameters():
            parameter.requires_grad = False
        self.modes = []

    def train(self, mode=True):
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, x):
        with torch.no_grad():
            features = self.backbone(x)
        return self.head(features)

    def training_step(self, batch, batch_idx):
        x, y = batch
        if batch_idx == 0:
            self.modes.append([self.backbone.training, self.head.training])
        loss = nn.functional.cross_entropy(self(x), y)
        self.log("train_loss", loss, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        if batch_idx == 0:
            self.modes.append([self.backbone.training, self.head.training])
        self.log("val_acc", (self(x).argmax(1) == y).float().mean())

    def configure_optimizers(self):
        trainable = filter(lambda p: p.requires_grad, self.parameters())
        return torch.optim.SGD(trainable, lr=0.1)


if __name__ == "__main__":
    L.seed_everything(1)
    x = torch.randn(120, 6)
    dataset = TensorDataset(x, (x.sum(1) > 0).long())
    model = FineTuner()
    model.backbone.eval()
    before = {k: v.clone() for k, v in model.backbone.state_dict().items()}
    trainer = L.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False
    )
    trainer.fit(
        model, DataLoader(dataset, 20, shuffle=True), DataLoader(dataset, batch_size=30)
    )
    after = model.backbone.state_dict()
    print(
        json.dumps(
            {
                "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
                "modes": model.modes,
                "backbone_same": all(torch.equal(before[k], after[k]) for k in before),
                "state": sum(
                    v.double().sum().item() for v in model.state_dict().values()
                ),
                "modes_after": [model.backbone.training, model.head.training],
                "global_step": trainer.global_step,
            }
        )
    )
