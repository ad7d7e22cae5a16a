"""Semi-supervised: a map-style loader beside a stream without a length."""

import json

import lightning as L
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset


class Stream(IterableDataset):
    def __init__(self, count):
        self.count = count

    def __iter__(self):
        generator = torch.Generator().manual_seed(7)
        for _ in range(self.count):
            yield torch.randn(4, generator=generator)


class SemiSupervised(L.LightningModule):
    def __init__(self, weight=0.5):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Linear(4, 2)
        self.kinds = []

    def training_step(self, batch, batch_idx):
        labelled, stream = batch["labelled"], batch["stream"]
        self.kinds.append([labelled is not None, stream is not None])
        loss = torch.zeros((), device=self.device)
        if labelled is not None:
            x, y = labelled
            loss = loss + F.cross_entropy(self.net(x), y)
        if stream is not None:
            probabilities = self.net(stream).softmax(1)
            entropy = -(probabilities * probabilities.log()).sum(1).mean()
            loss = loss + self.hparams.weight * entropy
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=4)
        return loss

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x = batch if isinstance(batch, torch.Tensor) else batch[0]
        self.log("confidence", self.net(x).softmax(1).amax(1).mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


if __name__ == "__main__":
    from lightning.pytorch.utilities.combined_loader import CombinedLoader

    L.seed_everything(62)
    x = torch.randn(12, 4)
    labelled = TensorDataset(x, (x[:, 0] > 0).long())
    result = {}
    for mode in ("min_size", "max_size", "max_size_cycle"):
        loaders = {
            "labelled": DataLoader(labelled, batch_size=4, shuffle=True),
            "stream": DataLoader(Stream(20), batch_size=4),
        }
        L.seed_everything(63)
        model = SemiSupervised()
        trainer = L.Trainer(
            max_epochs=2,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_checkpointing=False,
            limit_val_batches=2,
        )
        val = [DataLoader(labelled, batch_size=4), DataLoader(Stream(20), batch_size=4)]
        trainer.fit(model, CombinedLoader(loaders, mode), val)
        result[mode] = {
            "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
            "kinds": model.kinds,
            "steps": trainer.global_step,
            "weights": model.net.weight.double().sum().item(),
        }
    print(json.dumps(result))
