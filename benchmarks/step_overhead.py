"""What a training step costs beside a hand-written loop, side by side in one run.

    python benchmarks/step_overhead.py [--rounds 7] [--steps 1000]

Every contender trains the same model on the same batches, which lie ready in memory, so that
only the loop differs. In each round all of them run one after the other, and each time is
divided by the hand-written loop's of the same round; the table shows the median of those ratios.
Calls are Python calls a step more than the hand-written loop's, counted apart.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lightgen_runtime

Batch = tuple[Tensor, Tensor]


class Batches:
    """A sized iterable of batches that lie ready."""

    def __init__(self, make: Callable[[], Batch], number: int) -> None:
        self.batches = [make() for _ in range(number)]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Any:
        return iter(self.batches)


def tiny() -> tuple[nn.Module, Callable[[], Batch]]:
    """A net of 20 thousand operations: nothing but overhead."""
    net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    return net, lambda: (torch.randn(32, 16), torch.randint(0, 4, (32,)))


def medium() -> tuple[nn.Module, Callable[[], Batch]]:
    """A small convolutional net, some milliseconds a step."""
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 8 * 8, 10),
    )
    return net, lambda: (torch.randn(32, 1, 16, 16), torch.randint(0, 10, (32,)))


def transformer() -> tuple[nn.Module, Callable[[], Batch]]:
    """One encoder layer and a head."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(64, 64)
            self.layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
            self.head = nn.Linear(64, 10)

        def forward(self, tokens: Tensor) -> Tensor:
            logits: Tensor = self.head(self.layer(self.embed(tokens)).mean(1))
            return logits

    return Net(), lambda: (torch.randint(0, 64, (8, 32)), torch.randint(0, 10, (8,)))


WORKLOADS = {"tiny MLP": tiny, "medium net": medium, "tiny transformer": transformer}
LOGGED = {"bare": 0, "1 metric": 1, "10 metrics": 10}


def by_hand(make: Any, batches: Batches, logged: int) -> float:
    """Time the loop that a person writes; losses are kept, as a person would."""
    torch.manual_seed(0)
    net, _ = make()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    kept: list[Tensor] = []
    started = time.perf_counter()
    for x, y in batches:
        loss = F.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if logged:
            kept.append(loss.detach())
    return time.perf_counter() - started


def with_trainer(namespace: Any, **flags: Any) -> Callable[[Any, Batches, int], float]:
    """Return what times a package of Lightning's programming model."""

    def run(make: Any, batches: Batches, logged: int) -> float:
        names = [f"metric_{number}" for number in range(logged)]

        class Module(namespace.LightningModule):  # type: ignore[name-defined,misc]
            def __init__(self) -> None:
                super().__init__()
                torch.manual_seed(0)
                self.net, _ = make()

            def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
                x, y = batch
                loss = F.cross_entropy(self.net(x), y)
                for name in names:
                    self.log(name, loss)
                return loss

            def configure_optimizers(self) -> Any:
                return torch.optim.SGD(self.parameters(), lr=0.01)

        clock: list[float] = []

        class Clock(namespace.Callback):  # type: ignore[name-defined,misc]
            def on_train_start(self, *_: Any) -> None:
                clock.append(time.perf_counter())

            def on_train_end(self, *_: Any) -> None:
                clock.append(time.perf_counter())

        defaults: dict[str, Any] = {
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
        }
        trainer = namespace.Trainer(
            accelerator="cpu",
            max_epochs=1,
            enable_model_summary=False,
            default_root_dir=tempfile.gettempdir(),
            callbacks=[Clock()],
            **{**defaults, **flags},
        )
        trainer.fit(Module(), batches)
        return clock[1] - clock[0]

    return run


def with_accelerate(make: Any, batches: Batches, logged: int) -> float:
    """Time a loop by Accelerate's own tutorial."""
    from accelerate import Accelerator

    torch.manual_seed(0)
    net, _ = make()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    accelerator = Accelerator(cpu=True)
    net, optimizer = accelerator.prepare(net, optimizer)
    started = time.perf_counter()
    for x, y in batches:
        loss = F.cross_entropy(net(x), y)
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
    return time.perf_counter() - started


def with_ignite(make: Any, batches: Batches, logged: int) -> float:
    """Time an engine of Ignite's with the same update."""
    from ignite.engine import Engine

    torch.manual_seed(0)
    net, _ = make()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)

    def update(engine: Any, batch: Batch) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    engine = Engine(update)
    started = time.perf_counter()
    engine.run(batches, max_epochs=1)
    return time.perf_counter() - started


def contenders() -> dict[str, Callable[[Any, Batches, int], float]]:
    """Return what is installed, the hand-written loop first."""
    found: dict[str, Any] = {
        "by hand": by_hand,
        "lightgen_runtime": with_trainer(lightgen_runtime),
        "lightgen_runtime, defaults": with_trainer(
            lightgen_runtime,
            logger=True,
            enable_checkpointing=True,
            enable_progress_bar=True,
        ),
    }
    if importlib.util.find_spec("lightning"):
        import lightning

        found["lightning"] = with_trainer(lightning)
    if importlib.util.find_spec("accelerate"):
        found["accelerate"] = with_accelerate
    if importlib.util.find_spec("ignite"):
        found["ignite"] = with_ignite
    return found


def calls_a_step(run: Any, make: Any, batch: Any, logged: int) -> float:
    """Count Python calls a step, as the difference of a longer and a shorter run."""

    def count(steps: int) -> int:
        calls = 0

        def profile(frame: Any, event: str, argument: Any) -> None:
            nonlocal calls
            calls += event == "call"

        batches = Batches(batch, steps)
        sys.setprofile(profile)
        try:
            run(make, batches, logged)
        finally:
            sys.setprofile(None)
        return calls

    count(2)
    return (count(40) - count(20)) / 20


def main() -> None:
    """Measure and print one table a workload."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="paired rounds")
    parser.add_argument("--steps", type=int, default=1000, help="steps of the tiny MLP")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    runs = contenders()
    for workload, make in WORKLOADS.items():
        _, batch = make()
        steps = options.steps if workload == "tiny MLP" else options.steps // 4
        batches = Batches(batch, steps)
        for label, logged in LOGGED.items():
            ratios: dict[str, list[float]] = {name: [] for name in runs}
            for _ in range(options.rounds):
                times = {n: run(make, batches, logged) for n, run in runs.items()}
                for name, seconds in times.items():
                    ratios[name].append(seconds / times["by hand"])
            base = calls_a_step(by_hand, make, batch, logged)
            print(f"\n{workload}, {label} ({steps} steps)")
            for name, run in runs.items():
                more = calls_a_step(run, make, batch, logged) - base
                low, high = min(ratios[name]), max(ratios[name])
                middle = statistics.median(ratios[name])
                print(
                    f"  {name:<28} {middle:6.2f}  ({low:.2f} to {high:.2f})"
                    f"  {more:+8.1f} calls"
                )


if __name__ == "__main__":
    main()
