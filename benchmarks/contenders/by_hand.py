"""The loops that a person writes who knows PyTorch and wants no package.

No value is read back in a step in which nothing is reported: `loss.item()` in every step
would make this loop slower than all others on a GPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from contenders.workloads import (
    GAN,
    REPORT_EVERY,
    Batches,
    Pair,
    Ran,
    Variant,
    Workload,
    flat,
    seeded_net,
    sgd,
)

Rows = list[dict[str, float]]


def run(workload: Workload, variant: Variant, batches: Batches) -> Ran:
    """Time one epoch."""
    net = seeded_net(workload)
    loop: Callable[[], Rows]
    if workload is GAN:
        loop = partial(adversarial, net, sgd(net.generator), sgd(net.critic), batches)
    elif variant.epoch_means:
        loop = partial(epoch_means, net, sgd(net), batches, variant.names())
    elif variant.logged:
        loop = partial(logged, net, sgd(net), batches, variant.names())
    elif variant.clip is not None:
        window, clip = variant.accumulate, variant.clip
        loop = partial(accumulated, net, sgd(net), batches, window, clip)
    else:
        loop = partial(bare, net, sgd(net), batches)
    started = time.perf_counter()
    rows = loop()
    return Ran(time.perf_counter() - started, flat(net), rows)


def bare(net: nn.Module, optimizer: Optimizer, batches: Batches) -> Rows:
    for x, y in batches:
        loss = F.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return []


def logged(
    net: nn.Module, optimizer: Optimizer, batches: Batches, names: list[str]
) -> Rows:
    """Report the value of every 50th step: between them there is nothing to do."""
    rows = []
    for number, (x, y) in enumerate(batches, 1):
        loss = F.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if number % REPORT_EVERY == 0:
            rows.append({name: loss.item() for name in names})
    return rows


def epoch_means(
    net: nn.Module, optimizer: Optimizer, batches: Batches, names: list[str]
) -> Rows:
    """Keep a running sum of each metric."""
    sums: dict[str, Tensor] = {name: torch.zeros(()) for name in names}
    for x, y in batches:
        loss = F.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for name in names:
            sums[name] += loss.detach()
    return [{name: total.item() / len(batches) for name, total in sums.items()}]


def accumulated(
    net: nn.Module, optimizer: Optimizer, batches: Batches, window: int, clip: float
) -> Rows:
    for number, (x, y) in enumerate(batches, 1):
        loss = F.cross_entropy(net(x), y) / window
        loss.backward()
        if number % window == 0:
            clip_grad_norm_(net.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
    return []


def adversarial(
    net: Pair, for_generator: Optimizer, for_critic: Optimizer, batches: Batches
) -> Rows:
    generator, critic = net.generator, net.critic
    for real, noise in batches:
        fake = generator(noise)
        critic_loss = critic(fake.detach()).mean() - critic(real).mean()
        for_critic.zero_grad()
        critic_loss.backward()
        for_critic.step()

        generator_loss = -critic(fake).mean()
        for_generator.zero_grad()
        generator_loss.backward()
        for_generator.step()
    return []
