"""Ignite's engine around the updates that are written by hand."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from ignite.engine import Engine, Events
from ignite.metrics import Average
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from contenders.workloads import (
    GAN,
    REPORT_EVERY,
    Batch,
    Batches,
    Ran,
    Variant,
    Workload,
    flat,
    seeded_net,
    sgd,
)

Update = Callable[[Engine, Batch], Any]


def run(workload: Workload, variant: Variant, batches: Batches) -> Ran:
    """Time one epoch."""
    net = seeded_net(workload)
    update = adversarial(net) if workload is GAN else classify(net, variant)
    rows: list[dict[str, float]] = []
    engine = Engine(update)
    report(engine, variant, rows)
    started = time.perf_counter()
    engine.run(batches, max_epochs=1)
    return Ran(time.perf_counter() - started, flat(net), rows)


def report(engine: Engine, variant: Variant, rows: list[dict[str, float]]) -> None:
    """Attach what keeps the metrics and reports them."""
    names = variant.names()
    if variant.epoch_means:
        for name in names:
            Average().attach(engine, name)
        engine.add_event_handler(
            Events.EPOCH_COMPLETED,
            lambda engine: rows.append(dict(engine.state.metrics)),
        )
    elif names:
        engine.add_event_handler(
            Events.ITERATION_COMPLETED(every=REPORT_EVERY),
            lambda engine: rows.append({n: engine.state.output.item() for n in names}),
        )


def classify(net: Any, variant: Variant) -> Update:
    optimizer = sgd(net)
    window = variant.accumulate

    def update(engine: Engine, batch: Batch) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    def update_in_windows(engine: Engine, batch: Batch) -> None:
        x, y = batch
        loss = F.cross_entropy(net(x), y) / window
        loss.backward()
        if engine.state.iteration % window == 0:
            if variant.clip is not None:
                clip_grad_norm_(net.parameters(), variant.clip)
            optimizer.step()
            optimizer.zero_grad()

    return update_in_windows if window > 1 else update


def adversarial(net: Any) -> Update:
    generator, critic = net.generator, net.critic
    for_generator = sgd(generator)
    for_critic = sgd(critic)

    def update(engine: Engine, batch: Batch) -> None:
        real, noise = batch
        fake = generator(noise)
        critic_loss = critic(fake.detach()).mean() - critic(real).mean()
        for_critic.zero_grad()
        critic_loss.backward()
        for_critic.step()

        generator_loss = -critic(fake).mean()
        for_generator.zero_grad()
        generator_loss.backward()
        for_generator.step()

    return update
