"""SimCLR on vectors: two random views from a collate function, then a linear probe."""

import json

import lightning as L
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader


def two_views(rows):
    x = torch.stack(rows)
    return x * (torch.rand_like(x) > 0.2), x + 0.1 * torch.randn_like(x)


class SimCLR(L.LightningModule):
    def __init__(self, temperature=0.2, lr=1e-2):
        super().__init__()
        self.save_hyperparameters()
        self.encoder = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU())
        self.projector = nn.Linear(32, 8)

    def info_nce(self, batch, mode):
        z = F.normalize(self.projector(self.encoder(torch.cat(batch))), dim=1)
        similarity = z @ z.T / self.hparams.temperature
        similarity.fill_diagonal_(float("-inf"))
        count = len(batch[0])
        target = torch.arange(2 * count, device=self.device).roll(count)
        loss = F.cross_entropy(similarity, target)
        self.log(f"{mode}_loss", loss, batch_size=count)
        ranks = (similarity > similarity.gather(1, target[:, None])).sum(1)
        self.log(f"{mode}_top1", (ranks == 0).float().mean(), batch_size=count)
        self.log(f"{mode}_rank", 1 + ranks.float().mean(), batch_size=count)
        return loss

    def training_step(self, batch, batch_idx):
        return self.info_nce(batch, "train")

    def validation_step(self, batch, batch_idx):
        self.info_nce(batch, "val")

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), self.hparams.lr)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, T_max=self.trainer.max_epochs, eta_min=1e-4
        )
        return [optimizer], [scheduler]


if __name__ == "__main__":
    L.seed_everything(27)
    digits = load_digits()
    pixels = torch.tensor(digits.data / 16, dtype=torch.float32)
    model = SimCLR()
    trainer = L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(
        model,
        DataLoader(
            pixels[:600], 60, shuffle=True, collate_fn=two_views, drop_last=True
        ),
        DataLoader(pixels[600:730], batch_size=60, collate_fn=two_views),
    )
    model.eval()
    with torch.no_grad():
        features = model.encoder(pixels[:400]).numpy()
    probe = LogisticRegression(max_iter=200).fit(features[:300], digits.target[:300])
    print(
        json.dumps(
            {
                "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
                "probe": probe.score(features[300:], digits.target[300:400]),
                "weights": sum(
                    v.double().sum().item() for v in model.state_dict().values()
                ),
                "global_step": trainer.global_step,
            }
        )
    )
