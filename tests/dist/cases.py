"""What is tried with several processes: `python cases.py WORLD_SIZE`.

Each case runs in every process and returns what that process found, as plain data. With
one process the same cases give what the others are compared with.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torchmetrics
from torch import Tensor, nn
from torch.utils.data import (
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import lightgen_runtime as L
from lightgen_runtime.callbacks import (
    BaseFinetuning,
    Callback,
    EarlyStopping,
    LearningRateFinder,
    ModelCheckpoint,
)
from lightgen_runtime.strategies import DDPStrategy
from lightgen_runtime.utilities.exceptions import (
    EmptyDataError,
    MisconfigurationException,
)

CASES: dict[str, Callable[[int], Any]] = {}


def case(function: Callable[[int], Any]) -> Callable[[int], Any]:
    CASES[function.__name__] = function
    return function


def quiet(world: int, **flags: Any) -> L.Trainer:
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": world,
        "strategy": "ddp" if world > 1 else "auto",
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return L.Trainer(**{**defaults, **flags})


def numbered(count: int) -> TensorDataset:
    """Samples that tell their number."""
    features = torch.randn(count, 4, generator=torch.Generator().manual_seed(1))
    return TensorDataset(features, torch.arange(count))


def digest(module: nn.Module) -> str:
    content = b"".join(t.detach().numpy().tobytes() for t in module.state_dict().values())
    return hashlib.sha256(content).hexdigest()[:12]


class Net(L.LightningModule):
    """Two layers, from the same weights in every process count."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 1)
        self.seen: list[int] = []
        self.digests: list[str] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.seen += batch[1].tolist()
        return (self(batch[0]).squeeze(1) - batch[1] / 10).pow(2).mean()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.digests.append(digest(self))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def weights(module: nn.Module) -> list[float]:
    return torch.cat([p.detach().flatten() for p in module.parameters()]).tolist()


def fitted(world: int, module: Net, per_process: int = 2, **flags: Any) -> Any:
    """Fit on global batches of the same samples, however many processes share them."""
    # Rank 0 must win, whatever the others begin with.
    rank = quiet(world).global_rank
    if rank:
        for parameter in module.parameters():
            parameter.data.add_(rank)
    data = DataLoader(numbered(24), 12 // per_process * per_process // world)
    trainer = quiet(world, **flags)
    trainer.fit(module, data)
    return {
        "weights": weights(module),
        "digests": module.digests,
        "seen": module.seen,
        "steps": trainer.global_step,
        "batches": trainer.num_training_batches,
        "keys": list(module.state_dict()),
    }


# ---- training equals that of a single process ----


@case
def plain_fit(world: int) -> Any:
    return fitted(world, Net(), max_epochs=3)


@case
def accumulating_fit(world: int) -> Any:
    data = DataLoader(numbered(60), 12 // world)  # a short last window
    module = Net()
    trainer = quiet(
        world, max_epochs=2, accumulate_grad_batches=2, gradient_clip_val=0.5
    )
    reduced = count_reductions(trainer)
    trainer.fit(module, data)
    return {
        "weights": weights(module),
        "steps": trainer.global_step,
        "reductions": len(reduced),
        # Between the steps of a window, replicas hold the same weights too.
        "digests": module.digests,
    }


def count_reductions(trainer: L.Trainer) -> list[None]:
    """Have each exchange of gradients leave an entry in the returned list."""
    found: list[None] = []
    strategy = trainer.strategy
    if isinstance(strategy, DDPStrategy):
        from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import (
            allreduce_hook,
        )

        def hook(state: Any, bucket: Any) -> Any:
            found.append(None)
            return allreduce_hook(None, bucket)

        hook.__annotations__.clear()  # torch compares them with its classes, unresolved
        strategy._comm_hook = hook
    return found


class Closure(Net):
    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)


@case
def closure_fit(world: int) -> Any:
    return fitted(world, Closure(), max_epochs=2)


class Gan(Net):
    """Two optimizers by hand, each loss reaching a part of the parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        generator, judge = self.optimizers()
        for optimizer, sign in ((generator, 1.0), (judge, -0.1)):
            self.toggle_optimizer(optimizer)
            optimizer.zero_grad()
            self.manual_backward(sign * self(batch[0]).pow(2).mean())
            optimizer.step()
            self.untoggle_optimizer(optimizer)

    def configure_optimizers(self) -> Any:
        parts = (self.first, self.second)
        return [torch.optim.SGD(part.parameters(), lr=0.05) for part in parts]


class SeedGan(Gan):
    """As the guide writes it: nothing toggled."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        opt_g, opt_d = self.optimizers()
        opt_g.zero_grad()
        g_loss = self(batch[0]).pow(2).mean()
        self.manual_backward(g_loss)
        opt_g.step()
        opt_d.zero_grad()
        d_loss = (self(batch[0].detach()) - 1).abs().mean()
        self.manual_backward(d_loss)
        opt_d.step()
        self.log_dict({"g_loss": g_loss, "d_loss": d_loss})


class OneByHand(Net):
    """By hand, accumulating over two batches without talking in between."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        optimizer = self.optimizers()
        closes = batch_idx % 2 == 1
        with optimizer.toggle_model(sync_grad=closes):
            self.manual_backward(super().training_step(batch, batch_idx))
        if closes:
            optimizer.step()
            optimizer.zero_grad()


@case
def manual_fits(world: int) -> Any:
    return {
        kind.__name__: fitted(world, kind(), max_epochs=2)
        for kind in (Gan, SeedGan, OneByHand)
    }


class Named(Net):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        out = self(batch[0])
        return {"first": out.pow(2).mean(), "second": (out - 1).abs().mean()}

    def configure_optimizers(self) -> Any:
        return {
            "first": torch.optim.SGD(self.first.parameters(), lr=0.05),
            "second": torch.optim.SGD(self.second.parameters(), lr=0.05),
        }


@case
def named_fit(world: int) -> Any:
    return fitted(world, Named(), max_epochs=2)


class Unfreeze(BaseFinetuning):
    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.first)

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.first, optimizer, lr=0.05)


class Tuned(Net):
    def configure_optimizers(self) -> Any:
        trained = filter(lambda p: p.requires_grad, self.parameters())
        return torch.optim.SGD(trained, lr=0.05)


@case
def unfreezing_fit(world: int) -> Any:
    return fitted(world, Tuned(), max_epochs=3, callbacks=[Unfreeze()])


class Normed(Net):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("flags", torch.tensor([True, False]))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.norm(x))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.buffers_seen = [b.tolist() for b in self.norm.buffers()]


@case
def buffers_in_validation(world: int) -> Any:
    module = Normed()
    data = DataLoader(numbered(24), 4)
    quiet(world).fit(module, data, DataLoader(numbered(4 * world), 4))
    return module.buffers_seen


class Unused(Net):
    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(1, 1)


@case
def unused_parameters(world: int) -> Any:
    found = {}
    strategy = "ddp_find_unused_parameters_true" if world > 1 else "auto"
    found["allowed"] = fitted(world, Unused(), strategy=strategy)["weights"]
    try:
        fitted(world, Unused())
    except RuntimeError as error:
        found["notes"] = getattr(error, "__notes__", [])
    return found


class Silent(Net):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return None


@case
def loss_of_none(world: int) -> Any:
    try:
        fitted(world, Silent())
    except MisconfigurationException as error:
        return str(error)
    return None


# ---- every sample once ----


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


@case
def exact_evaluation(world: int) -> Any:
    found: dict[str, Any] = {}
    for count in range(3 * 4 + 2):
        for size in (1, 3):
            module, trainer = Counting(), quiet(world)
            loader = DataLoader(numbered(count), size)
            try:
                [metrics] = trainer.test(module, loader, verbose=False)
            except EmptyDataError:
                found[f"{count}/{size}"] = "empty"
                continue
            trainer.predict(module, loader)
            everything = trainer.predict_loop.of_all_processes(trainer.strategy)
            found[f"{count}/{size}"] = {
                "metrics": metrics,
                "seen": module.seen,
                "batches": trainer.num_predict_batches,
                "predicted": [batch.tolist() for batch in everything],
            }
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


# ---- loaders ----


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


class Reading(Counting):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.seen += batch[1].reshape(-1).tolist()
        return self.weight.sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.evaluated += batch[1].reshape(-1).tolist()

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


# ---- metrics ----


class Logging(Net):
    """Logs in every way; batches have different sizes."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        value = batch[1].double().mean()
        self.log("plain", value, on_step=False, on_epoch=True)
        self.log("both", value, on_step=True, on_epoch=True, sync_dist=True)
        self.log("own_step", value, on_step=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        value = batch[1].double().mean()
        self.log("val", value)  # no sync_dist: the guide promises it like that
        self.log("val_sum", value, reduce_fx="sum", sync_dist=True)
        self.log("mine", float(self.global_rank), rank_zero_only=True, batch_size=1)

    def on_train_epoch_end(self) -> None:
        self.log("at_end", float(self.global_rank))
        if self.global_rank == 0:
            self.log("first_only", 7.0)

    def on_validation_epoch_end(self) -> None:
        self.log("val_end", float(self.global_rank), sync_dist=True)


class Watching(Callback):
    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self.at_epoch_end: dict[str, float] = {}

    def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
        self.steps.append(floats(trainer.callback_metrics))

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.at_epoch_end = floats(trainer.callback_metrics)


def floats(metrics: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}


@case
def metrics(world: int) -> Any:
    watching = Watching()
    trainer = quiet(world, callbacks=[watching], log_every_n_steps=2)
    module = Logging()
    # 11 of 2, 1: processes see different numbers of validation samples and batches.
    loaders = [DataLoader(numbered(11), 2), DataLoader(numbered(1), 1)]
    trainer.fit(module, DataLoader(numbered(8 * world), 2), loaders)
    final = floats(trainer.callback_metrics)
    return {
        "final": final,
        "at_epoch_end": watching.at_epoch_end,
        "steps": watching.steps,
        "seen": module.seen,
    }


class Torn(Net):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("shared", 1.0, sync_dist=True)
        self.log(f"only_{self.global_rank}", 1.0, sync_dist=True)


@case
def keys_that_differ(world: int) -> Any:
    try:
        quiet(world).validate(Torn(), DataLoader(numbered(8), 2), verbose=False)
    except MisconfigurationException as error:
        return str(error)
    return None


class Objects(Net):
    def __init__(self) -> None:
        super().__init__()
        self.mean = torchmetrics.MeanMetric()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.mean.update(batch[1].double())
        self.log("object", self.mean)


@case
def metric_objects(world: int) -> Any:
    found = []
    for count in (1, 7):  # one leaves processes without a sample
        [values] = quiet(world).validate(
            Objects(), DataLoader(numbered(count), 2), verbose=False
        )
        found.append(values)
    return found


# ---- decisions ----


class Stopping(Callback):
    """One process alone asks to stop, in mid-epoch."""

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_rank == trainer.world_size - 1 and batch_idx == 1:
            trainer.should_stop = True


class Worse(Net):
    """The monitored value is a matter of each process; the last one's gets worse."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        last = self.global_rank == self.trainer.world_size - 1
        value = float(self.current_epoch) if last else -float(self.current_epoch)
        self.log("score", value, rank_zero_only=True)


@case
def stopping(world: int) -> Any:
    found = {}
    data = numbered(20 * world)
    for every in (4, 100):
        trainer = quiet(world, callbacks=[Stopping()], log_every_n_steps=every)
        trainer.fit(Net(), DataLoader(data, 2))
        found[f"asked/{every}"] = [trainer.global_step, trainer.should_stop]
    stopper = EarlyStopping("score", patience=2)
    trainer = quiet(world, callbacks=[stopper], max_epochs=9)
    trainer.fit(Worse(), DataLoader(data, 20), DataLoader(data, 20))
    found["early"] = [trainer.current_epoch, stopper.stopping_reason.name]
    return found


class Scored(Net):
    """Each process prefers another epoch."""

    def on_train_epoch_end(self) -> None:
        rank = self.global_rank
        self.log("score", abs(self.current_epoch - 1.0 - rank), rank_zero_only=True)


@case
def checkpoints(world: int) -> Any:
    L.seed_everything(5, verbose=False)
    saver = ModelCheckpoint(monitor="score", save_top_k=2, save_last=True)
    trainer = quiet(
        world, max_epochs=4, logger=True, enable_checkpointing=True, callbacks=[saver]
    )
    trainer.fit(Scored(), DataLoader(numbered(8), 2))
    folder = Path(saver.dirpath or "")
    return {
        "log_dir": trainer.log_dir,
        "version": trainer.logger.version if trainer.logger else None,
        "folder": str(folder),
        "best": saver.best_model_path,
        "kept": sorted(Path(path).name for path in saver.best_k_models),
        "files": sorted(path.name for path in folder.iterdir()),
        "others": sorted(p.name for p in folder.parent.parent.iterdir()),
    }


class Noisy(Net):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step((batch[0] + torch.randn(4), batch[1]), batch_idx)
        self.log("loss", loss, on_epoch=True)
        return loss


@case
def resuming(world: int) -> Any:
    """A fit in two parts against one in one, with random numbers of each process's own."""
    found = {}
    for name, flags in {
        "epoch": {"every_n_epochs": 1},
        "middle": {"every_n_train_steps": 3},
    }.items():
        whole, first, second = Noisy(), Noisy(), Noisy()
        shared = DataLoader(numbered(8 * world), 2, shuffle=True)

        def run(module: Net, epochs: int, **more: Any) -> ModelCheckpoint:
            L.seed_everything(6, verbose=False)
            saver = ModelCheckpoint(f"resume_{world}_{name}", save_top_k=-1, **flags)  # type: ignore[arg-type]  # noqa: B023
            trainer = quiet(
                world, max_epochs=epochs, enable_checkpointing=True, callbacks=[saver]
            )
            torch.rand(trainer.global_rank)  # generators that are each process's own
            trainer.fit(module, shared, **more)  # noqa: B023
            return saver

        run(whole, 3)
        saver = run(first, 3)
        path = sorted(Path(saver.dirpath or "").glob("*.ckpt"))[0]
        run(second, 3, ckpt_path=path)
        found[name] = [digest(whole), digest(second), path.name]
    return found


class Searched(Net):
    def __init__(self) -> None:
        super().__init__()
        self.lr = 0.001

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


@case
def learning_rate_search(world: int) -> Any:
    module = Searched()
    finder = LearningRateFinder(num_training_steps=20, max_lr=0.5)
    data = DataLoader(numbered(20 * world), 2, shuffle=True)
    quiet(world, callbacks=[finder]).fit(module, data)
    return {"lr": module.lr, "weights": digest(module)}


# ---- communication ----


@case
def communication(world: int) -> Any:
    found: dict[str, Any] = {}

    class Talking(Net):
        def on_train_start(self) -> None:
            trainer, rank = self.trainer, self.global_rank
            strategy = trainer.strategy
            mine = torch.tensor([float(rank), 1.0])
            for op in ("mean", "sum", "max", "min"):
                found[op] = strategy.reduce(mine, reduce_op=op).tolist()
            found["whole"] = float(strategy.reduce(torch.tensor(rank)))
            found["kept"] = mine.tolist() == [float(rank), 1.0]
            found["broadcast"] = strategy.broadcast({"from": rank}, src=0)
            found["any"] = strategy.reduce_boolean_decision(rank == 0, all=False)
            found["all"] = strategy.reduce_boolean_decision(rank == 0)
            strategy.barrier("here")
            nested = self.all_gather({"a": [mine, rank], "b": "text"})
            found["gathered"] = [nested["a"][0].tolist(), nested["a"][1].tolist()]
            found["text"] = nested["b"]
            leaf = torch.full((2,), float(rank + 1), requires_grad=True)
            together = self.all_gather(leaf, sync_grads=True)
            found["synced"] = together.requires_grad
            together.pow(2).sum().backward()
            found["gradient"] = leaf.grad.tolist() if leaf.grad is not None else None
            found["ranks"] = [
                trainer.world_size,
                trainer.global_rank,
                trainer.local_rank,
                trainer.node_rank,
                trainer.is_global_zero,
                self.global_rank,
                self.local_rank,
            ]

        def prepare_data(self) -> None:
            found["prepared"] = True

    quiet(world).fit(Talking(), DataLoader(numbered(4), 1))
    found.setdefault("prepared", False)
    return found


def main(world: int) -> None:
    torch.set_num_threads(1)
    rank = quiet(world).global_rank
    found = {name: function(world) for name, function in CASES.items()}
    Path(f"{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]))
