"""The best checkpoints of a fit vote, and their average weights are tested."""

import json
from pathlib import Path

import lightning as L
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset


class Classifier(L.LightningModule):
    def __init__(self, width=8, lr=0.1):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        logits = self(batch[0])
        self.log("val_loss", F.cross_entropy(logits, batch[1]))
        self.log("val_acc", (logits.argmax(1) == batch[1]).float().mean())

    test_step = validation_step

    def predict_step(self, batch, batch_idx):
        return self(batch[0]).softmax(1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr, momentum=0.9)


if __name__ == "__main__":
    L.seed_everything(60)
    x = torch.randn(60, 4)
    data = TensorDataset(x, x[:, :3].argmax(1))
    loader = DataLoader(data, batch_size=20)
    keeping = L.pytorch.callbacks.ModelCheckpoint(
        "kept",
        filename="{epoch}-{val_loss:.3f}",
        monitor="val_loss",
        save_top_k=3,
        save_last=True,
        save_weights_only=True,
    )
    trainer = L.Trainer(
        max_epochs=6,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        callbacks=[keeping],
    )
    trainer.fit(Classifier(), DataLoader(data, 10, shuffle=True), loader)

    paths = sorted(keeping.best_k_models)
    votes = [
        torch.cat(trainer.predict(Classifier.load_from_checkpoint(path), loader))
        for path in paths
    ]
    mean = torch.stack(votes).mean(0)

    states = [torch.load(path, weights_only=True)["state_dict"] for path in paths]
    soup = Classifier()
    soup.load_state_dict(
        {key: torch.stack([s[key] for s in states]).mean(0) for key in states[0]}
    )
    tested = trainer.test(soup, loader, verbose=False)
    each = [
        trainer.validate(Classifier(), loader, ckpt_path=path, verbose=False)[0]
        for path in paths
    ]
    print(
        json.dumps(
            {
                "metrics": {"soup": tested, "each": each},
                "files": sorted(path.name for path in Path("kept").glob("*.ckpt")),
                "voted": (mean.argmax(1) == data.tensors[1]).float().mean().item(),
                "mean": mean.double().pow(2).sum().item(),
                "keys": sorted(torch.load(paths[0], weights_only=True)),
                "best": Path(keeping.best_model_path).name,
            }
        )
    )
