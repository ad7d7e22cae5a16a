"""Fits that are saved inside an epoch and go on with another number of processes.

`python elastic_cases.py WORLD STEP...`; a step is FROM:TO:BATCHES:SEED, the name of the
files to go on from (nothing begins a fit), that of the files to save, after how many
batches, and another seed.
"""

from __future__ import annotations

import json
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import agreement_cases  # noqa: F401
import data_cases  # noqa: F401
import torch
import torchmetrics
import training_cases  # noqa: F401
from torch import Tensor, nn
from torch.utils.data import (
    DataLoader,
    DistributedSampler,
    IterableDataset,
    WeightedRandomSampler,
)
from trial_net import CASES, Net, numbered, quiet

import lightgen_runtime as L
from lightgen_runtime.callbacks import Checkpoint

EPOCH = 1  # the epoch that is interrupted
COUNT = 38
GLOBAL_BATCH = 4
FLAGS: dict[str, dict[str, Any]] = {
    "accumulating": {"accumulate_grad_batches": 4},
    "limited": {"limit_train_batches": 7},
    "fsdp": {"strategy": "fsdp"},
}


class Recording(Net):
    """Notes what it reads in the epoch, by epoch, and logs in every way."""

    def __init__(self) -> None:
        super().__init__()
        self.total = torchmetrics.SumMetric()
        self.read: dict[int, list[int]] = {}
        self.metrics: dict[int, dict[str, float]] = {}
        self.indices: list[int] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        features, numbers = batch[0].reshape(-1, 4), batch[1].reshape(-1)
        self.read.setdefault(self.current_epoch, []).extend(numbers.tolist())
        if self.current_epoch == EPOCH:
            self.indices.append(batch_idx)
        values = numbers.double()
        size = len(numbers)
        self.log("mean", values.mean(), on_step=False, on_epoch=True, batch_size=size)
        epoch: dict[str, Any] = {"on_step": False, "on_epoch": True}
        self.log("sum", values.sum(), reduce_fx="sum", **epoch)
        self.log("most", values.max(), reduce_fx="max", **epoch)
        self.log("least", values.min(), reduce_fx="min", sync_dist=True, **epoch)
        self.total.update(values)
        self.log("total", self.total, **epoch)
        return (self(features).squeeze(1) - numbers / 10).pow(2).mean()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Leave out what the base class notes, which a sharded module cannot give."""


def whole_weights(module: nn.Module) -> list[float]:
    parts: list[Any] = [parameter.detach() for parameter in module.parameters()]
    whole = [p.full_tensor() if hasattr(p, "full_tensor") else p for p in parts]
    return torch.cat([part.flatten() for part in whole]).tolist()


class Saves(Checkpoint):
    """Saves once, behind a batch of the epoch; notes the metrics of every epoch."""

    def __init__(self, path: str, batches: int) -> None:
        self.path, self.batches = path, batches

    def on_train_batch_end(self, trainer: Any, module: Any, *args: Any) -> None:
        if trainer.current_epoch == EPOCH and args[2] + 1 == self.batches:
            trainer.save_checkpoint(self.path)
            module.at_save = list(module.read[EPOCH])

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        found = {name: float(v) for name, v in trainer.callback_metrics.items()}
        module.metrics[trainer.current_epoch] = found
        if trainer.current_epoch == EPOCH:
            module.at_end = whole_weights(module)


class Shuffled:
    """A batch sampler of one's own, whose batches are of different sizes."""

    def __init__(self) -> None:
        parts = torch.arange(COUNT).split([1, 3, 2, 4, 2, 2, 4, 4, 3, 1, 2, 4, 2, 2, 2])
        self.batches = [part.tolist() for part in parts]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        order = list(self.batches)
        random.shuffle(order)
        return iter(order)


def loaders(world: int, rank: int) -> dict[str, Callable[[], DataLoader[Any]]]:
    data, size = numbered(COUNT), GLOBAL_BATCH // world

    def drawn(count: int) -> WeightedRandomSampler:
        generator = torch.Generator().manual_seed(5)
        return WeightedRandomSampler([1.0] * count, count, False, generator)

    def split() -> Any:
        return DistributedSampler(data, world, rank, seed=8)

    return {
        "in_order": lambda: DataLoader(data, size),
        "shuffled": lambda: DataLoader(data, size, shuffle=True),
        "even": lambda: DataLoader(numbered(40), size, shuffle=True),
        "accumulating": lambda: DataLoader(numbered(40), size, shuffle=True),
        "drop_last": lambda: DataLoader(data, size, shuffle=True, drop_last=True),
        "limited": lambda: DataLoader(data, size, shuffle=True),
        "own_generator": lambda: DataLoader(
            data, size, shuffle=True, generator=torch.Generator().manual_seed(4)
        ),
        "weighted": lambda: DataLoader(data, size, sampler=drawn(COUNT)),
        "own_batches": lambda: DataLoader(data, batch_sampler=Shuffled()),
        "unbatched": lambda: DataLoader(data, batch_size=None, shuffle=True),
        "own_split": lambda: DataLoader(data, size, sampler=split()),
        "own_split_or_none": lambda: DataLoader(
            data, size, sampler=split() if world > 1 else None, shuffle=world == 1
        ),
        "workers": lambda: DataLoader(
            data, size, shuffle=True, num_workers=1, persistent_workers=True
        ),
        "fsdp": lambda: DataLoader(numbered(40), size, shuffle=True),
    }


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(numbered(20))


class OwnSplit(DistributedSampler[Any]):
    """Of which nobody knows what it draws."""


def unknown(world: int, rank: int) -> dict[str, Callable[[], Any]]:
    """Return data of which it is not known what is left of an epoch."""
    data, size = numbered(COUNT), GLOBAL_BATCH // world
    return {
        "stream": lambda: DataLoader(Stream(), size),
        "several": lambda: {"a": DataLoader(data, size), "b": DataLoader(data, size)},
        "own": lambda: DataLoader(data, size, sampler=OwnSplit(data, world, rank)),
    }


class OfSeveral(Recording):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        batch = batch["a"] if isinstance(batch, dict) else batch
        return super().training_step(batch, batch_idx)


def save_unknown(world: int) -> None:
    for name, make in unknown(world, quiet(world).global_rank).items():
        saver = Saves(f"unknown_{name}.ckpt", 2)
        trainer = quiet(
            world, max_epochs=2, callbacks=[saver], enable_checkpointing=True
        )
        trainer.fit(OfSeveral(), make())


def go_on(
    world: int, source: str, target: str, batches: str, seed: str = "7"
) -> dict[str, Any]:
    """Run every case from files (none begins anew); return what this process saw."""
    found = {}
    rank = quiet(world).global_rank
    for name, make in loaders(world, rank).items():
        L.seed_everything(int(seed), verbose=False)
        module, flags = Recording(), dict(FLAGS.get(name, {}))
        if world == 1:
            flags.pop("strategy", None)
        saver = Saves(f"{target}_{name}.ckpt", int(batches) if target else -1)
        trainer = quiet(
            world,
            max_epochs=3 if name == "shuffled" else 2,
            callbacks=[saver],
            enable_checkpointing=True,
            **flags,
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            path = f"{source}_{name}.ckpt" if source else None
            trainer.fit(module, make(), ckpt_path=path)
        found[name] = {
            "read": {str(epoch): seen for epoch, seen in module.read.items()},
            "at_save": getattr(module, "at_save", None),
            "indices": module.indices,
            "metrics": {str(e): values for e, values in module.metrics.items()},
            "weights": module.at_end,
            "steps": trainer.global_step,
            "said": [str(w.message) for w in caught if "goes on" in str(w.message)],
        }
    return found


def main(world: int, steps: list[str]) -> None:
    torch.set_num_threads(1)
    rank = quiet(world).global_rank
    found: dict[str, Any] = {}
    for step in steps:
        found[step] = go_on(world, *step.split(":"))
    if ":a2:3" in steps:
        save_unknown(world)
    if world == 4:
        names = ["exact_evaluation", "training_of_every_size"]
        names += ["metrics", "metric_objects", "communication"]
        cases = {name: CASES[name](world) for name in names}
        Path(f"4_{rank}.json").write_text(json.dumps(cases))
    for name, value in found.items():
        path = Path(f"{name.replace(':', '-')}_{rank}.json")
        path.write_text(json.dumps(value))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
