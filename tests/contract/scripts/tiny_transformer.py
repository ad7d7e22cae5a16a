"""A character language model: attention, tied weights, perplexity, greedy sampling."""

import json
import math

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

TEXT = "the quick brown fox jumps over the lazy dog and runs away from it. " * 12


class Characters(Dataset):
    def __init__(self, text, block=16):
        self.vocabulary = sorted(set(text))
        index = {c: i for i, c in enumerate(self.vocabulary)}
        self.data = torch.tensor([index[c] for c in text])
        self.block = block

    def __len__(self):
        return (len(self.data) - 1) // self.block

    def __getitem__(self, i):
        start = i * self.block
        piece = self.data[start : start + self.block + 1]
        return {"input": piece[:-1], "target": piece[1:]}


class LanguageModel(L.LightningModule):
    def __init__(self, vocabulary, width=16, block=16):
        super().__init__()
        self.save_hyperparameters()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.randn(block, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, 2, 4 * width, dropout=0.1, batch_first=True
        )
        self.blocks = nn.TransformerEncoder(
            layer, num_layers=2, enable_nested_tensor=False
        )
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, x):
        length = x.size(1)
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        hidden = self.tokens(x) + self.positions[:length]
        return self.head(self.blocks(hidden, mask=mask, is_causal=True))

    def step(self, batch):
        logits = self(batch["input"])
        return nn.functional.cross_entropy(
            logits.flatten(0, 1), batch["target"].flatten()
        )

    def training_step(self, batch, batch_idx):
        loss = self.step(batch)
        self.log_dict({"train_loss": loss, "ppl": loss.exp()}, prog_bar=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.step(batch), prog_bar=True)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=3e-3, betas=(0.9, 0.95))
        total = self.trainer.estimated_stepping_batches
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda s: min((s + 1) / 5, 0.5 * (1 + math.cos(math.pi * s / total))),
        )
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


if __name__ == "__main__":
    L.seed_everything(1234)
    dataset = Characters(TEXT)
    model = LanguageModel(len(dataset.vocabulary))
    trainer = L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        gradient_clip_val=1.0,
        val_check_interval=0.5,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    val = DataLoader(dataset, batch_size=32)
    trainer.fit(model, DataLoader(dataset, batch_size=8, shuffle=True), val)
    model.eval()
    sample = dataset.data[:4].unsqueeze(0)
    for _ in range(8):
        sample = torch.cat([sample, model(sample)[:, -1:].argmax(-1)], 1)
    print(
        json.dumps(
            {
                "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
                "sample": sample.tolist(),
                "rate": trainer.optimizers[0].param_groups[0]["lr"],
                "weights": sum(p.double().sum().item() for p in model.parameters()),
                "global_step": trainer.global_step,
            }
        )
    )
