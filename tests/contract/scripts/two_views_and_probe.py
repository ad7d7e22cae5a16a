"""Self-supervised: a collate function makes two views; then a linear probe on top."""

import json

import lightning as L
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset


class TwoViews:
    """Augments each sample twice."""

    def __init__(self, noise):
        self.noise = noise

    def __call__(self, samples):
        x = torch.stack([sample[0] for sample in samples])
        y = torch.stack([sample[1] for sample in samples])
        views = [x + self.noise * torch.randn_like(x) for _ in range(2)]
        return tuple(views), y


class SimSiam(L.LightningModule):
    def __init__(self, width=8):
        super().__init__()
        self.save_hyperparameters()
        self.encoder = nn.Sequential(
            nn.Linear(5, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, width),
        )
        self.predictor = nn.Linear(width, width)

    def forward(self, x):
        return self.encoder(x)

    def training_step(self, batch, batch_idx):
        (one, two), _ = batch
        z1, z2 = self(one), self(two)
        p1, p2 = self.predictor(z1), self.predictor(z2)
        loss = -F.cosine_similarity(p1, z2.detach()).mean() / 2
        loss = loss - F.cosine_similarity(p2, z1.detach()).mean() / 2
        self.log("ssl_loss", loss, on_step=True, on_epoch=True)
        self.log("collapse", z1.std(0).mean(), on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, self.trainer.max_epochs
        )
        return [optimizer], [schedule]


class Probe(L.LightningModule):
    def __init__(self, backbone, classes=2):
        super().__init__()
        self.save_hyperparameters(ignore=["backbone"])
        self.backbone = backbone
        self.backbone.freeze()
        self.head = nn.Linear(backbone.hparams.width, classes)

    def on_train_epoch_start(self):
        self.backbone.eval()

    def training_step(self, batch, batch_idx):
        x, y = batch
        with torch.no_grad():
            features = self.backbone(x)
        loss = F.cross_entropy(self.head(features), y)
        self.log("probe_loss", loss)
        return loss

    def test_step(self, batch, batch_idx):
        x, y = batch
        hits = self.head(self.backbone(x)).argmax(1) == y
        self.log("acc", hits.float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.head.parameters(), lr=0.05)


if __name__ == "__main__":
    L.seed_everything(53)
    x = torch.randn(40, 5)
    data = TensorDataset(x, (x[:, 0] > 0).long())
    flags = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_checkpointing": False,
    }
    pretraining = L.Trainer(max_epochs=3, **flags)
    model = SimSiam()
    loader = DataLoader(
        data, batch_size=8, shuffle=True, collate_fn=TwoViews(0.3), drop_last=True
    )
    pretraining.fit(model, loader)

    probe = Probe(model)
    probing = L.Trainer(max_epochs=5, **flags)
    probing.fit(probe, DataLoader(data, batch_size=8, shuffle=True))
    tested = probing.test(probe, DataLoader(data, batch_size=16), verbose=False)
    print(
        json.dumps(
            {
                "metrics": {
                    "ssl": {
                        k: v.item() for k, v in pretraining.callback_metrics.items()
                    },
                    "test": tested,
                },
                "hparams": dict(probe.hparams),
                "means": model.encoder[1].running_mean.double().sum().item(),
                "weights": probe.head.weight.double().sum().item(),
                "trainable": [
                    n for n, p in probe.named_parameters() if p.requires_grad
                ],
                "rate": pretraining.optimizers[0].param_groups[0]["lr"],
            }
        )
    )
