"""Who reads which samples."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import (
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    WeightedRandomSampler,
)
from trial_net import Net, case, digest, numbered, quiet

import lightgen_runtime as L
from lightgen_runtime.utilities.exceptions import (
    EmptyDataError,
    MisconfigurationException,
)


class Counting(L.LightningModule):
    """Evaluates and predicts, and remembers which samples it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.seen: list[int] = []

    def test_step(self, batch: Any, batch_idx: int) -> None:
        numbers = batch[1]
        self.seen += numbers.tolist()
        self.log("count", float(len(numbers)), reduce_fx="sum", sync_dist=True)
        self.log("mean", numbers.double().mean(), sync_dist=True)
        self.log("least", numbers.min(), reduce_fx="min", sync_dist=True)
        self.log("most", numbers.max(), reduce_fx="max", sync_dist=True)

    def on_test_epoch_end(self) -> None:
        self.log("at_end", float(self.global_rank), reduce_fx="sum")

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        return batch[1]

    def validation_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.test_step(batch, batch_idx)
        return batch[1]

    def on_validation_epoch_start(self) -> None:
        self.collected: list[Tensor] = []

    def on_validation_batch_end(self, outputs: Any, *_: Any) -> None:
        self.collected.append(outputs)

    def on_validation_epoch_end(self) -> None:
        self.gathered = [n.tolist() for n in self.gather_in_order(self.collected)]


@case
def exact_evaluation(world: int) -> Any:
    found: dict[str, Any] = {}
    for count in range(3 * 4 + 2):
        for size in (1, 2):
            module, trainer = Counting(), quiet(world)
            loader = DataLoader(numbered(count), size)
            if count == 0:
                runs = (trainer.test, trainer.validate, trainer.predict)
                found[f"0/{size}"] = [_refuses(run, module, loader) for run in runs]
                continue
            [metrics] = trainer.test(module, loader, verbose=False)
            seen, module.seen = module.seen, []
            [validated] = trainer.validate(module, loader, verbose=False)
            everything = trainer.predict(module, loader, return_predictions="all")
            found[f"{count}/{size}"] = {
                "metrics": metrics,
                "seen": seen,
                "validated": [validated, module.seen],
                "gathered": module.gathered,
                "batches": trainer.num_predict_batches,
                "predicted": [batch.tolist() for batch in everything],
            }
    return found


def _refuses(run: Callable[..., Any], *args: Any) -> bool:
    try:
        run(*args)
    except EmptyDataError:
        return True
    return False


@case
def training_of_every_size(world: int) -> Any:
    found: dict[str, Any] = {}
    for count in range(3 * world + 2):
        for size in (1, 2):
            module, trainer = Reading(), quiet(world)
            loader = DataLoader(numbered(count), size)
            if count == 0:
                found[f"0/{size}"] = _refuses(trainer.fit, module, loader)
                continue
            trainer.fit(module, loader)
            found[f"{count}/{size}"] = module.seen[1:]
    return found


@case
def limited_evaluation(world: int) -> Any:
    found = []
    for limit in (2, 0.5, 0):
        module = Counting()
        trainer = quiet(world, limit_test_batches=limit)
        trainer.test(module, DataLoader(numbered(5), 1), verbose=False)
        found.append(module.seen)
    return found


class Buckets:
    """A batch sampler of one's own: no base class, batches of different sizes."""

    def __init__(self) -> None:
        self.batches = [[0, 1], [2, 3], [4], [5, 6, 7, 8], [9]]
        self.epochs: list[int] = []

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        order = list(self.batches)
        random.shuffle(order)
        return iter(order)

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)


class OwnLoader(DataLoader[Any]):
    """Cannot be built again from its attributes."""

    def __init__(self, name: str, count: int, **kwargs: Any) -> None:
        self.name = name
        super().__init__(numbered(count), **kwargs)


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(numbered(4))


class NoLength:
    def __iter__(self) -> Iterator[int]:
        return iter(range(4))


def loaders(world: int, rank: int) -> dict[str, Callable[[], DataLoader[Any]]]:
    data = numbered(10)
    return {
        "in_order": lambda: DataLoader(data, 2),
        "shuffled": lambda: DataLoader(data, 2, shuffle=True),
        "drop_last": lambda: DataLoader(data, 3, shuffle=True, drop_last=True),
        "own_class": lambda: OwnLoader("mine", 10, batch_size=2, shuffle=True),
        "weighted": lambda: DataLoader(
            data, 2, sampler=WeightedRandomSampler([1.0] * 10, 10, replacement=False)
        ),
        "part": lambda: DataLoader(data, 2, sampler=RandomSampler(data, num_samples=6)),
        "own_batches": lambda: DataLoader(data, batch_sampler=Buckets()),
        "unbatched": lambda: DataLoader(data, batch_size=None, shuffle=True),
        "own_split": lambda: DataLoader(
            data, 2, sampler=DistributedSampler(data, world, rank, drop_last=True)
        ),
        "iterable": lambda: DataLoader(Endless(), 2),
        "workers": lambda: DataLoader(data, 2, shuffle=True, num_workers=1),
    }


class Split(IterableDataset[Any]):
    """A stream of which each process yields its own part."""

    def __init__(self, world: int) -> None:
        self.world = world

    def __iter__(self) -> Iterator[Any]:
        rank = torch.distributed.get_rank()
        return islice(iter(numbered(2 * self.world)), rank, None, self.world)


class Together(Counting):
    def on_predict_start(self) -> None:
        self.collected = []

    def on_predict_batch_end(self, outputs: Any, *_: Any) -> None:
        self.collected.append(outputs)

    def on_predict_epoch_end(self) -> None:
        self.gathered = [n.tolist() for n in self.gather_in_order(self.collected)]


@case
def predictions_of_a_split_stream(world: int) -> Any:
    if world == 1:
        return None
    module, trainer = Together(), quiet(world)
    loader = DataLoader(Split(world), 1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        everything = trainer.predict(module, loader, return_predictions="all")
    said = [str(w.message) for w in caught if "has not split" in str(w.message)]
    return [batch.tolist() for batch in everything], module.gathered, said


class Reading(Counting):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.seen += batch[1].reshape(-1).tolist()
        return self.weight.sum()

    def validation_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.evaluated += batch[1].reshape(-1).tolist()
        return batch[1]

    def on_train_epoch_start(self) -> None:
        self.seen.append(-1)
        self.evaluated: list[int] = []

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.0)


@case
def split_loaders(world: int) -> Any:
    found = {}
    for name, make in loaders(world, quiet(world).global_rank).items():
        L.seed_everything(3, verbose=False)
        module, loader = Reading(), make()
        trainer = quiet(world, max_epochs=2, num_sanity_val_steps=0)
        # Generators of the processes drift apart, as dropout would make them.
        torch.rand(trainer.global_rank + 1)
        random.random() if trainer.global_rank else None
        sampler = loader.sampler
        trainer.fit(module, loader, make())
        used = trainer.train_dataloader
        found[name] = {
            "seen": module.seen,
            "evaluated": module.evaluated,
            "batches": trainer.num_training_batches,
            "estimated": trainer.estimated_stepping_batches,
            "kind": type(used).__name__,
            "name": getattr(used, "name", None),
            "sampler": type(used.sampler).__name__,
            "untouched": loader.sampler is sampler,
            "epochs": getattr(loader.batch_sampler, "epochs", None),
        }
    return found


@case
def unsplit_loaders(world: int) -> Any:
    found: dict[str, Any] = {}
    module = Reading()
    trainer = quiet(world, use_distributed_sampler=False, num_sanity_val_steps=0)
    trainer.fit(module, DataLoader(numbered(4), 2), DataLoader(numbered(4), 2))
    found["unasked"] = [module.seen, module.evaluated]
    module = Reading()
    trainer = quiet(world, overfit_batches=2, num_sanity_val_steps=0)
    loader = DataLoader(numbered(12), 2, shuffle=True)
    trainer.fit(module, loader, loader)
    found["overfit"] = [module.seen, module.evaluated]
    module = Reading()
    several = {"a": DataLoader(numbered(8), 2), "b": DataLoader(numbered(4), 2)}

    class Both(Reading):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            self.seen.append([batch["a"][1].tolist(), batch["b"][1].tolist()])  # type: ignore[arg-type]
            return self.weight.sum()

    both = Both()
    quiet(world).fit(both, several)
    found["several"] = both.seen
    try:
        sampler: Any = NoLength()
        quiet(world).fit(module, DataLoader(numbered(4), 2, sampler=sampler))
    except MisconfigurationException as error:
        found["no_length"] = str(error)
    return found


class Uneven(Net):
    """Trains on what each process has of its own, and counts its batches by epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def on_train_epoch_start(self) -> None:
        self.batches.append(0)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.batches[-1] += 1
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.validated_after = sum(self.batches)


class Some(IterableDataset[Any]):
    """The first samples, without a length."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[Any]:
        return islice(iter(numbered(100)), self.count)


@case
def uneven_training_data(world: int) -> Any:
    rank = quiet(world).global_rank
    mine = 2 * (3 + 2 * rank)
    makes: dict[str, Callable[[], DataLoader[Any]]] = {
        "no length": lambda: DataLoader(Some(mine), 2),
        "length": lambda: DataLoader(numbered(mine), 2),
        "either": lambda: DataLoader(numbered(mine) if rank else Some(mine), 2),
    }
    found = {}
    for name, make in makes.items():
        module = Uneven()
        trainer = quiet(
            world,
            max_epochs=2,
            accumulate_grad_batches=2,
            use_distributed_sampler=False,
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer.fit(module, make(), DataLoader(numbered(4), 2))
        said = [str(w.message) for w in caught if "process" in str(w.message)]
        found[name] = {
            "batches": module.batches,
            "steps": trainer.global_step,
            "validated_after": module.validated_after,
            "weights": digest(module),
            "said": said,
        }
    return found
