"""The loops by hand, with the changes that Accelerate's tutorial makes to them.

It keeps and reports no metrics by itself: that stays as it is by hand.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

from contenders.workloads import (
    GAN,
    REPORT_EVERY,
    Batches,
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
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=variant.accumulate)
    loop: Callable[[], Rows]
    if workload is GAN:
        nets = (net.generator, net.critic)
        prepared = accelerator.prepare(*nets, *map(sgd, nets))
        loop = partial(adversarial, accelerator, *prepared, batches)
    else:
        prepared = accelerator.prepare(net, sgd(net))
        loop = partial(classify, accelerator, *prepared, variant, batches)
    started = time.perf_counter()
    rows = loop()
    return Ran(time.perf_counter() - started, flat(net), rows)


def classify(
    accelerator: Accelerator,
    net: Any,
    optimizer: Any,
    variant: Variant,
    batches: Batches,
) -> Rows:
    rows: Rows = []
    names = variant.names()
    sums: dict[str, Tensor] = {name: torch.zeros(()) for name in names}
    for number, (x, y) in enumerate(batches, 1):
        with accelerator.accumulate(net):
            loss = F.cross_entropy(net(x), y)
            accelerator.backward(loss)
            if variant.clip is not None and accelerator.sync_gradients:
                accelerator.clip_grad_norm_(net.parameters(), variant.clip)
            optimizer.step()
            optimizer.zero_grad()
        if variant.epoch_means:
            for name in names:
                sums[name] += loss.detach()
        elif names and number % REPORT_EVERY == 0:
            rows.append({name: loss.item() for name in names})
    if variant.epoch_means:
        rows.append({name: total.item() / number for name, total in sums.items()})
    return rows


def adversarial(
    accelerator: Accelerator,
    generator: Any,
    critic: Any,
    for_generator: Any,
    for_critic: Any,
    batches: Batches,
) -> Rows:
    for real, noise in batches:
        fake = generator(noise)
        critic_loss = critic(fake.detach()).mean() - critic(real).mean()
        for_critic.zero_grad()
        accelerator.backward(critic_loss)
        for_critic.step()

        generator_loss = -critic(fake).mean()
        for_generator.zero_grad()
        accelerator.backward(generator_loss)
        for_generator.step()
    return []
