"""A small U-Net with metric objects for overlap and accuracy, tested from its best file."""

import json

import lightning as L
import torch
import torchmetrics
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset


def block(inputs, outputs):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class UNet(nn.Module):
    def __init__(self, width, classes):
        super().__init__()
        self.down, self.middle = block(1, width), block(width, 2 * width)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.out = nn.Sequential(block(2 * width, width), nn.Conv2d(width, classes, 1))

    def forward(self, x):
        skip = self.down(x)
        up = self.up(self.middle(F.max_pool2d(skip, 2)))
        return self.out(torch.cat([skip, up], dim=1))


def dice_loss(logits, masks):
    probabilities = logits.softmax(1)[:, 1]
    overlap = (probabilities * masks).sum()
    return 1 - 2 * overlap / (probabilities.sum() + masks.sum() + 1e-6)


class Segmentation(L.LightningModule):
    def __init__(self, width=4, dice_weight=0.5, lr=0.02):
        super().__init__()
        self.save_hyperparameters()
        self.net = UNet(width, 2)
        jaccard = torchmetrics.JaccardIndex(task="multiclass", num_classes=2)
        self.iou = nn.ModuleDict({s: jaccard.clone() for s in ("fit", "val", "test")})
        self.accuracy = torchmetrics.Accuracy(task="multiclass", num_classes=2)

    def forward(self, x):
        return self.net(x)

    def step(self, batch, stage):
        images, masks = batch
        logits = self(images)
        loss = F.cross_entropy(logits, masks)
        loss = loss + self.hparams.dice_weight * dice_loss(logits, masks)
        self.iou[stage](logits.argmax(1), masks)
        self.log(f"{stage}_loss", loss, prog_bar=True, batch_size=len(images))
        self.log(f"{stage}_iou", self.iou[stage], on_step=False, on_epoch=True)
        return loss

    def training_step(self, batch, batch_idx):
        return self.step(batch, "fit")

    def validation_step(self, batch, batch_idx):
        self.step(batch, "val")

    def test_step(self, batch, batch_idx):
        self.step(batch, "test")
        self.accuracy.update(self(batch[0]).argmax(1), batch[1])

    def on_test_epoch_end(self):
        self.log("test_acc", self.accuracy.compute())

    def predict_step(self, batch, batch_idx):
        return self(batch[0]).argmax(1)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)


def pictures(count, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 1, 8, 8, generator=generator)
    images[:, :, 2:6, 2:6] += 2
    return TensorDataset(images, (images[:, 0] > 1).long())


if __name__ == "__main__":
    L.seed_everything(54)
    trainer = L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        gradient_clip_val=1.0,
        callbacks=[
            L.pytorch.callbacks.ModelCheckpoint(
                monitor="val_iou", mode="max", filename="{epoch}-{step}"
            )
        ],
    )
    model = Segmentation()
    held_out = DataLoader(pictures(6, 1), batch_size=4)
    trainer.fit(
        model, DataLoader(pictures(14, 0), batch_size=4, shuffle=True), held_out
    )
    fitted = {k: v.item() for k, v in trainer.callback_metrics.items()}
    tested = trainer.test(model, held_out, ckpt_path="best", verbose=False)
    predicted = trainer.predict(model, held_out)
    print(
        json.dumps(
            {
                "metrics": {"fit": fitted, "test": tested},
                "best": trainer.checkpoint_callback.best_model_path.split("/")[-1],
                "predicted": int(torch.cat(predicted).sum()),
            }
        )
    )
