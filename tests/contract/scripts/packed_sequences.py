"""A recurrent tagger on sequences of different lengths: padding, packing, bptt by hand."""

import json

import lightning as L
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler


class Parities(Dataset):
    def __init__(self, count):
        generator = torch.Generator().manual_seed(count)
        lengths = torch.randint(3, 9, (count,), generator=generator).tolist()
        self.bits = [torch.randint(2, (n,), generator=generator) for n in lengths]

    def __len__(self):
        return len(self.bits)

    def __getitem__(self, index):
        return self.bits[index], self.bits[index].cumsum(0) % 2


def collate(samples):
    samples.sort(key=lambda pair: -len(pair[0]))
    bits, tags = zip(*samples, strict=True)
    lengths = [len(b) for b in bits]
    tags = pad_sequence(tags, batch_first=True, padding_value=-100)
    return {"bits": pad_sequence(bits, True), "tags": tags, "lengths": lengths}


class Tagger(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(2, 4)
        self.rnn = nn.GRU(4, 10, batch_first=True)
        self.out = nn.Linear(10, 2)

    def forward(self, bits, lengths):
        packed = pack_padded_sequence(self.embed(bits), lengths, batch_first=True)
        return self.out(pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0])

    def step(self, batch, name):
        logits = self(batch["bits"], batch["lengths"])
        loss = nn.functional.cross_entropy(
            logits.flatten(0, 1), batch["tags"].flatten()
        )
        kept = batch["tags"] != -100
        correct = (logits.argmax(-1) == batch["tags"])[kept].float().mean()
        # A mean over tags, so weighted by tags.
        self.log_dict(
            {f"{name}_loss": loss, f"{name}_acc": correct},
            batch_size=sum(batch["lengths"]),
            on_step=False,
            on_epoch=True,
        )
        return loss

    def training_step(self, batch, batch_idx):
        # Nothing to learn from very short batches.
        if sum(batch["lengths"]) < 40:
            return None
        return self.step(batch, "train")

    def validation_step(self, batch, batch_idx):
        self.step(batch, "val")

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.02)


if __name__ == "__main__":
    L.seed_everything(49)
    dataset = Parities(90)
    weights = [len(bits) for bits in dataset.bits]
    sampler = WeightedRandomSampler(weights, num_samples=72)
    model = Tagger()
    trainer = L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        gradient_clip_val=0.5,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    train = DataLoader(dataset, 8, sampler=sampler, collate_fn=collate)
    trainer.fit(model, train, DataLoader(Parities(20), 8, collate_fn=collate))
    print(
        json.dumps(
            {
                "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
                "weights": sum(p.double().sum().item() for p in model.parameters()),
                "global_step": trainer.global_step,
            }
        )
    )
