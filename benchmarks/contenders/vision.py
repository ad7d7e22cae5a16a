"""The generated `vision` project: its own classes, and its loop by hand.

Both train, validate after each epoch, follow the same learning rate, and keep the best
weights in a file. The returned time is that of a training step, all this included.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from torch.utils.data import DataLoader, TensorDataset

import lightgen_runtime as L
from contenders.trainers import clock_of, quiet
from lightgen_runtime.callbacks import EarlyStopping, FiniteLoss, ModelCheckpoint


def by_trainer(epochs: int) -> float:
    """Train with what `config.yaml` of the project says."""
    from digits.data import DigitsDataModule
    from digits.module import DigitsModule

    clock = clock_of(L)
    L.seed_everything(0)
    with tempfile.TemporaryDirectory() as folder, quiet():
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            log_every_n_steps=10,
            default_root_dir=folder,
            callbacks=[
                ModelCheckpoint(monitor="val_loss", mode="min", save_last=True),
                EarlyStopping(monitor="val_loss", mode="min", patience=10),
                FiniteLoss(),
                clock,
            ],
        )
        trainer.fit(DigitsModule(), datamodule=DigitsDataModule())
    return (clock.ended - clock.started) / trainer.global_step


def by_hand(epochs: int, chosen: bool) -> float:
    """Train by hand: as usual, or with the project's loader and fused optimizer."""
    from digits.data import InMemoryDataset, read_digits, stratified_split
    from digits.net import DigitsNet

    L.seed_everything(0)
    images, labels = read_digits()
    train, val, _ = stratified_split(labels, 0.1, 0.2, seed=0)
    if chosen:
        train_loader = InMemoryDataset(images[train], labels[train]).loader(
            64, shuffle=True
        )
        val_loader = InMemoryDataset(images[val], labels[val]).loader(64)
    else:
        train_data = TensorDataset(images[train], labels[train])
        train_loader = DataLoader(train_data, batch_size=64, shuffle=True)
        val_loader = DataLoader(TensorDataset(images[val], labels[val]), batch_size=64)
    net = DigitsNet(width=32, dropout=0.2)
    how: dict[str, Any] = {"fused": True} if chosen else {}
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01, **how)
    total_steps = epochs * len(train_loader)
    warmup_steps = round(0.3 * total_steps)
    scheduler = SequentialLR(
        optimizer,
        [
            LinearLR(optimizer, start_factor=0.04, total_iters=warmup_steps),
            CosineAnnealingLR(optimizer, T_max=total_steps - warmup_steps),
        ],
        milestones=[warmup_steps],
    )
    best = float("inf")
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        for _ in range(epochs):
            net.train()
            total = torch.zeros(())
            for x, y in train_loader:
                logits = net(x)
                loss = F.cross_entropy(logits, y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                scheduler.step()
                total += loss.detach() * len(y)
            val_loss = validate(net, val_loader)
            state = {"net": net.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(state, Path(folder) / "last.pt")
            if val_loss < best:
                best = val_loss
                torch.save(state, Path(folder) / "best.pt")
        return (time.perf_counter() - started) / total_steps


def validate(net: nn.Module, loader: Any) -> float:
    """Return the mean loss; the accuracy is counted as well."""
    net.eval()
    loss, right, samples = torch.zeros(()), torch.zeros(()), 0
    with torch.no_grad():
        for x, y in loader:
            logits = net(x)
            loss += F.cross_entropy(logits, y) * len(y)
            right += (logits.argmax(1) == y).sum()
            samples += len(y)
    return loss.item() / samples
