"""The loops by hand in several processes, around DistributedDataParallel."""

from __future__ import annotations

import contextlib
import time

import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from contenders.by_hand import bare
from contenders.workloads import Batches, Ran, Variant, Workload, flat, seeded_net, sgd


def run(workload: Workload, variant: Variant, batches: Batches) -> Ran:
    """Time one epoch."""
    net = seeded_net(workload)
    ddp, optimizer = DistributedDataParallel(net), sgd(net)
    started = time.perf_counter()
    if variant.clip is None:
        bare(ddp, optimizer, batches)
    else:
        accumulated(ddp, optimizer, batches, variant.accumulate, variant.clip)
    return Ran(time.perf_counter() - started, flat(net), [])


def accumulated(
    ddp: DistributedDataParallel,
    optimizer: Optimizer,
    batches: Batches,
    window: int,
    clip: float,
) -> None:
    """Exchange gradients where they are complete."""
    for number, (x, y) in enumerate(batches, 1):
        closes = number % window == 0
        with contextlib.nullcontext() if closes else ddp.no_sync():
            loss = F.cross_entropy(ddp(x), y) / window
            loss.backward()
        if closes:
            clip_grad_norm_(ddp.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
