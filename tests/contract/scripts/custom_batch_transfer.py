"""Batches of a class of one's own, moved and augmented by the transfer hooks."""

import json
from dataclasses import dataclass

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader


@dataclass
class Graph:
    nodes: torch.Tensor
    edges: list
    target: torch.Tensor

    def __len__(self):
        return len(self.target)


def collate(samples):
    nodes = torch.cat([nodes for nodes, _ in samples])
    size = samples[0][0].size(0)
    edges = [(g * size, g * size + k) for g in range(len(samples)) for k in range(size)]
    return Graph(nodes, edges, torch.stack([target for _, target in samples]))


class GraphNet(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.node, self.out = nn.Linear(2, 4), nn.Linear(4, 1)
        self.order = []

    def on_before_batch_transfer(self, batch, dataloader_idx):
        self.order.append(f"before {dataloader_idx}")
        return batch

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        self.order.append(f"move {device}")
        if isinstance(batch, Graph):
            batch.nodes = batch.nodes.to(device)
            batch.target = batch.target.to(device)
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        if self.trainer.training:
            batch.nodes = batch.nodes + 0.01 * torch.randn_like(batch.nodes)
        self.order.append("after")
        return batch

    def forward(self, graph):
        sources, targets = map(torch.tensor, zip(*graph.edges, strict=True))
        hidden = torch.relu(self.node(graph.nodes))
        pooled = torch.zeros_like(hidden).index_add(0, sources, hidden[targets])
        return self.out(pooled[sources.unique()]).squeeze(1)

    def training_step(self, batch, batch_idx):
        loss = nn.functional.mse_loss(self(batch), batch.target)
        self.log("loss", loss, on_epoch=True, batch_size=len(batch))
        return loss

    def validation_step(self, batch, batch_idx):
        loss = nn.functional.mse_loss(self(batch), batch.target)
        self.log("val_loss", loss, batch_size=len(batch))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.02)


if __name__ == "__main__":
    L.seed_everything(64)
    samples = [(nodes, nodes.sum()) for nodes in torch.randn(20, 3, 2)]
    model = GraphNet()
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
    )
    train = DataLoader(samples, batch_size=6, shuffle=True, collate_fn=collate)
    trainer.fit(model, train, DataLoader(samples, 8, collate_fn=collate))
    print(
        json.dumps(
            {
                "metrics": {k: v.item() for k, v in trainer.callback_metrics.items()},
                "order": model.order,
                "weights": sum(p.double().sum().item() for p in model.parameters()),
                "global_step": trainer.global_step,
            }
        )
    )
