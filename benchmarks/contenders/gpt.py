"""A small GPT on a text in memory, in random windows: by hand, and as a module.

The text is made up; what it says does not matter to the time.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lightgen_runtime as L
from contenders.trainers import clock_of, quiet

LEARNING_RATE = 3e-4
SIZES = {"batch": 16, "window": 64, "width": 128, "heads": 4, "layers": 4, "vocab": 256}
REPORT_EVERY = 50


class Block(nn.Module):
    """Causal self-attention and a feed-forward net, each behind a norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_2 = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x_BTD: Tensor) -> Tensor:
        heads_3BHTK = (
            self.qkv(self.norm_1(x_BTD))
            .unflatten(2, (3, self.heads, -1))
            .permute(2, 0, 3, 1, 4)
        )
        mixed_BHTK = F.scaled_dot_product_attention(*heads_3BHTK, is_causal=True)
        x_BTD = x_BTD + self.out(mixed_BHTK.transpose(1, 2).flatten(2))
        return x_BTD + self.feed_forward(self.norm_2(x_BTD))


class GPT(nn.Module):
    """Tokens (B, T) to logits of the next ones (B, T, V)."""

    def __init__(self, vocab: int, window: int, width: int, heads: int, layers: int):
        super().__init__()
        self.token = nn.Embedding(vocab, width)
        self.position = nn.Parameter(torch.zeros(window, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocab, bias=False)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        x_BTD = self.token(tokens_BT) + self.position
        logits_BTV: Tensor = self.head(self.norm(self.blocks(x_BTD)))
        return logits_BTV


def make_gpt() -> GPT:
    torch.manual_seed(0)
    return GPT(**{name: size for name, size in SIZES.items() if name != "batch"})


def text() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(SIZES["vocab"], (1_000_000,), generator=generator)


def one_by_one(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Draw windows as most scripts do: a slice for each, then a stack."""
    window = SIZES["window"]
    starts = torch.randint(len(tokens) - window, (SIZES["batch"],))
    x = torch.stack([tokens[i : i + window] for i in starts])
    y = torch.stack([tokens[i + 1 : i + 1 + window] for i in starts])
    return x, y


WINDOW = torch.arange(SIZES["window"] + 1)


def one_read(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Draw the same windows by one indexed read."""
    starts = torch.randint(len(tokens) - SIZES["window"], (SIZES["batch"],))
    windows = tokens[starts.unsqueeze(1) + WINDOW]
    return windows[:, :-1], windows[:, 1:]


def next_token_loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    x, y = batch
    return F.cross_entropy(net(x).flatten(0, 1), y.flatten())


def by_hand(steps: int, chosen: bool) -> float:
    """Return the seconds of a step: as usual, or with the choices of the templates."""
    net = make_gpt()
    tokens = text()
    draw = one_read if chosen else one_by_one
    how: dict[str, Any] = {"fused": True} if chosen else {}
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, **how)
    rows = []
    started = time.perf_counter()
    for number in range(1, steps + 1):
        loss = next_token_loss(net, draw(tokens))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if number % REPORT_EVERY == 0:
            rows.append(loss.item())
    return (time.perf_counter() - started) / steps


class Windows:
    """As many random batches of windows as a run takes."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.tokens = text()

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(self.steps):
            yield one_read(self.tokens)


class GPTModule(L.LightningModule):
    """Learns the next token."""

    def __init__(self) -> None:
        super().__init__()
        self.net = make_gpt()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = next_token_loss(self.net, batch)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=LEARNING_RATE, fused=True)


def by_trainer(steps: int) -> float:
    """Return the seconds of a step of a fit that logs its loss to a CSV file."""
    clock = clock_of(L)
    with tempfile.TemporaryDirectory() as folder, quiet():
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=1,
            enable_checkpointing=False,
            log_every_n_steps=REPORT_EVERY,
            default_root_dir=folder,
            callbacks=[clock],
        )
        trainer.fit(GPTModule(), Windows(steps))
    return (clock.ended - clock.started) / steps
