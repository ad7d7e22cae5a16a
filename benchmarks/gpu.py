"""A GPT of 124 million parameters on one GPU: tokens a second beside the loop by hand.

    python benchmarks/gpu.py [--json gpu.json] [--tiny]

Computed in `bf16-mixed`, as it is written and through `torch.compile`. What is found is
written down after each part, so that a run that is cut off leaves the parts before.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lightgen_runtime
from contenders.gpt import GPT, LEARNING_RATE
from contenders.trainers import quiet, row_keeper
from paired import Spread, paired, versions

BY_HAND, OURS, LIGHTNING = "by hand", "`lightgen_runtime`", "Lightning"
REPORT_EVERY = 10
WARM = 3  # steps of a turn before its clock starts
STEPS = 10  # that it measures then
ROUNDS = 6

Batch = tuple[Tensor, Tensor]
Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


class Setting(NamedTuple):
    """What is trained, and where.

    Attributes:
        sizes: Of the net.
        batch: Sequences in a batch.
        device: Kind of device.
        compile: Arguments of `torch.compile`.
    """

    sizes: dict[str, int]
    batch: int
    device: str
    compile: dict[str, Any]

    @property
    def tokens(self) -> int:
        """Tokens that a step learns."""
        return self.batch * self.sizes["window"]


# Source: the smallest of the GPT-2 family, its vocabulary rounded up to a multiple of 64.
GPT_124M = {"vocab": 50304, "window": 1024, "width": 768, "heads": 12, "layers": 12}
TINY = {"vocab": 256, "window": 16, "width": 32, "heads": 2, "layers": 2}
FULL = Setting(GPT_124M, 16, "cuda", {})
SMALL = Setting(TINY, 2, "cpu", {"backend": "aot_eager"})


class Batches:
    """Batches of random tokens in host memory; says when the timed ones begin."""

    def __init__(self, setting: Setting, clock: Clock) -> None:
        generator = torch.Generator().manual_seed(0)
        shape = (WARM + STEPS, setting.batch, setting.sizes["window"] + 1)
        tokens = torch.randint(setting.sizes["vocab"], shape, generator=generator)
        pairs = [(t[:, :-1].contiguous(), t[:, 1:].contiguous()) for t in tokens]
        pins = setting.device == "cuda"
        self._kept = [
            (x.pin_memory(), y.pin_memory()) if pins else (x, y) for x, y in pairs
        ]
        self._clock = clock

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Batch]:
        for number, batch in enumerate(self._kept):
            if number == WARM:
                self._clock.start()
            yield batch


class Clock:
    """Measures from one moment of a turn to another, the device being done at both."""

    def __init__(self, device: str) -> None:
        self._wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
        self._started = self.seconds = 0.0

    def start(self) -> None:
        self._wait()
        self._started = time.perf_counter()

    def stop(self) -> None:
        self._wait()
        self.seconds = time.perf_counter() - self._started


def make_net(setting: Setting) -> GPT:
    """Make the net on its device, with one matrix for tokens going in and coming out."""
    torch.manual_seed(0)
    with torch.device(setting.device):
        net = GPT(**setting.sizes)
        nn.init.normal_(net.token.weight, std=0.02)
    net.head.weight = net.token.weight
    return net


def next_token_loss(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(net(x).flatten(0, 1), y.flatten())


def make_optimizer(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, fused=True)


def by_hand(setting: Setting, net: GPT, loss_of: Loss) -> float:
    """Return the seconds of the timed steps of a loop of bare PyTorch."""
    device, clock, rows = setting.device, Clock(setting.device), []
    net.to(device)
    optimizer = make_optimizer(net)
    for number, (x, y) in enumerate(Batches(setting, clock), start=1):
        x, y = x.to(device, non_blocking=True), y.to(device, non_blocking=True)
        # Without a cache, as both trainers have it: else one graph would not serve all.
        with torch.autocast(device, dtype=torch.bfloat16, cache_enabled=False):
            loss = loss_of(net, x, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if number % REPORT_EVERY == 0:
            rows.append(loss.item())
    clock.stop()
    return clock.seconds


def by_trainer(
    namespace: Any, setting: Setting, net: GPT, loss_of: Loss, **flags: Any
) -> float:
    """Return the seconds of the timed steps of a fit."""
    clock = Clock(setting.device)

    class Language(namespace.LightningModule):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
            x, y = batch
            loss = loss_of(self.net, x, y)
            self.log("train_loss", loss)
            return loss

        def on_train_end(self) -> None:
            clock.stop()

        def configure_optimizers(self) -> Any:
            return make_optimizer(self.net)

    with quiet():
        trainer = namespace.Trainer(
            accelerator="gpu" if setting.device == "cuda" else "cpu",
            devices=1,
            precision="bf16-mixed",
            max_epochs=1,
            logger=row_keeper(namespace),
            log_every_n_steps=REPORT_EVERY,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **flags,
        )
        trainer.fit(Language(), Batches(setting, clock))
    return clock.seconds


class Row(NamedTuple):
    """What one way of training reached.

    Attributes:
        work: As it is written, or compiled.
        way: Who trains.
        tokens: Tokens a second, in millions.
        ratio: To the loop by hand of the same round.
        peak: Largest memory in use, in GiB; 0 where nobody counts it.
    """

    work: str
    way: str
    tokens: Spread
    ratio: Spread
    peak: float


def with_peak(peaks: dict[str, float], way: str, run: Callable[[], float]) -> float:
    """Run, and keep the most memory that a turn has taken."""
    if not torch.cuda.is_available():
        return run()
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    seconds = run()
    peaks[way] = torch.cuda.max_memory_allocated() / 2**30
    return seconds


def measure(
    work: str, setting: Setting, ways: dict[str, Callable[[], float]], rounds: int
) -> list[Row]:
    """Time ways of training in turns, the one by hand first."""
    peaks: dict[str, float] = {}
    runs = {way: partial(with_peak, peaks, way, run) for way, run in ways.items()}
    rows = []
    for way, (seconds, ratio) in paired(runs, rounds).items():
        tokens = [1e-6 * setting.tokens * STEPS / value for value in seconds[::-1]]
        speed = Spread(*(1 / value for value in ratio[::-1]))
        rows.append(Row(work, way, Spread(*tokens), speed, peaks.get(way, 0.0)))
        print(
            f"{work:<10} {way:<20} {tokens[1]:8.4f} M tokens/s  {speed.text()}",
            flush=True,
        )
    return rows


def ways_of_training(setting: Setting) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the kinds of work, each with the ways of doing it."""
    net = make_net(setting)
    ours, theirs = lightgen_runtime, None
    if find_spec("lightning") is not None:
        import lightning as theirs  # type: ignore[no-redef]

    eager = {
        BY_HAND: partial(by_hand, setting, net, next_token_loss),
        OURS: partial(by_trainer, ours, setting, net, next_token_loss),
    }
    if theirs is not None:
        eager[LIGHTNING] = partial(by_trainer, theirs, setting, net, next_token_loss)
    yield "as written", eager

    # One graph for two of them: it takes longer to make than to measure.
    compiled = torch.compile(next_token_loss, **setting.compile)
    flag = setting.compile or True
    ways = {
        BY_HAND: partial(by_hand, setting, net, compiled),
        OURS: partial(by_trainer, ours, setting, net, next_token_loss, compile=flag),
    }
    if theirs is not None:
        ways[LIGHTNING] = partial(by_trainer, theirs, setting, net, compiled)
    yield "compiled", ways


def main() -> None:
    """Measure, print, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--tiny", action="store_true", help="a small net on the CPU")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="that are timed")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    setting = SMALL if options.tiny else FULL
    torch.set_float32_matmul_precision("high")
    name = torch.cuda.get_device_name() if setting.device == "cuda" else "CPU"
    found: dict[str, Any] = {
        "machine": name,
        "versions": versions(),
        "tokens": setting.tokens,
        "rows": [],
        "copies": {},
    }
    print(f"{name}, {versions()}, {setting.tokens:,} tokens a step", flush=True)

    def keep() -> None:
        if options.json is not None:
            options.json.write_text(
                json.dumps(found, indent=1) + "\n", encoding="utf-8"
            )

    if setting.device == "cuda":
        import choices

        comparison = choices.copies(100, ROUNDS)
        choices.show(comparison)
        found["copies"] = {
            "title": comparison.title,
            "ways": {n: [list(t), list(r)] for n, (t, r) in comparison.ways.items()},
        }
        keep()
    for work, ways in ways_of_training(setting):
        rows = measure(work, setting, ways, options.rounds)
        found["rows"] += [row._asdict() for row in rows]
        keep()
    print(f"\n{'work':<10} {'way':<20} M tokens/s  to by hand           peak GiB")
    for row in map(Row._make, (r.values() for r in found["rows"])):
        print(
            f"{row.work:<10} {row.way:<20} {row.tokens.median:10.4f}  "
            f"{row.ratio.text():<20} {row.peak:.2f}"
        )


if __name__ == "__main__":
    main()
