"""Fits, whose weights and steps are compared, and communication."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import (
    allreduce_hook,
    bf16_compress_hook,
    fp16_compress_hook,
    fp16_compress_wrapper,
)
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import (
    PowerSGDState,
    powerSGD_hook,
)
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from trial_net import Net, case, numbered, quiet, weights

from lightgen_runtime.callbacks import BaseFinetuning, StochasticWeightAveraging
from lightgen_runtime.strategies import DDPStrategy
from lightgen_runtime.utilities.exceptions import MisconfigurationException


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


@case
def plain_fit(world: int) -> Any:
    return fitted(world, Net(), max_epochs=3)


@case
def accumulating_fit(world: int) -> Any:
    exchanged: list[None] = []

    def count(state: Any, bucket: Any) -> Any:
        exchanged.append(None)
        return allreduce_hook(state, bucket)

    count.__annotations__.clear()  # torch compares them with its classes, unresolved
    data = DataLoader(numbered(60), 12 // world)  # a short last window
    module = Net()
    trainer = quiet(
        world,
        max_epochs=2,
        accumulate_grad_batches=2,
        gradient_clip_val=0.5,
        strategy=DDPStrategy(ddp_comm_hook=count) if world > 1 else "auto",
    )
    trainer.fit(module, data)
    return {
        "weights": weights(module),
        "steps": trainer.global_step,
        "exchanges": len(exchanged),
        # Between the steps of a window, replicas hold the same weights too.
        "digests": module.digests,
    }


@case
def fit_with_options(world: int) -> Any:
    options: Any = {"static_graph": True, "gradient_as_bucket_view": True}
    strategy = DDPStrategy(**options, timeout=timedelta(minutes=5))
    return fitted(
        world, Net(), max_epochs=3, strategy=strategy if world > 1 else "auto"
    )


def _powers() -> PowerSGDState:
    # From the third step on; matrices of any size are sent as a product of two vectors.
    options: Any = {"matrix_approximation_rank": 1, "start_powerSGD_iter": 2}
    return PowerSGDState(None, **options, min_compression_rate=0.1)


# Options of DistributedDataParallel, and how near they keep to one process.
OPTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "static_graph": lambda: {"static_graph": True},
    "bucket_view": lambda: {"gradient_as_bucket_view": True},
    "small_buckets": lambda: {"bucket_cap_mb": 0.0001},
    "no_buffers": lambda: {"broadcast_buffers": False},
    "fp16": lambda: {"ddp_comm_hook": fp16_compress_hook},
    "bf16": lambda: {"ddp_comm_hook": bf16_compress_hook},  # torch has it for GPUs only
    "power_sgd": lambda: {"ddp_comm_hook": powerSGD_hook, "ddp_comm_state": _powers()},
    "wrapped": lambda: {
        "ddp_comm_hook": powerSGD_hook,
        "ddp_comm_state": _powers(),
        "ddp_comm_wrapper": fp16_compress_wrapper,
    },
}


@case
def each_option(world: int) -> Any:
    """Each option of DistributedDataParallel by itself, and with accumulation."""
    found = {}
    for name, make in OPTIONS.items() if world < 3 else ():
        strategies = [DDPStrategy(**make()) if world > 1 else "auto" for _ in range(2)]
        plain = fitted(world, Net(), max_epochs=2, strategy=strategies[0])
        flags: Any = {"accumulate_grad_batches": 2, "strategy": strategies[1]}
        windows = fitted(world, Net(), max_epochs=2, **flags)
        found[name] = {"plain": plain, "windows": windows}
    for on in ("true", "false"):
        strategy = f"ddp_find_unused_parameters_{on}" if world > 1 else "auto"
        plain = fitted(world, Net(), max_epochs=2, strategy=strategy)
        found[f"find_unused_{on}"] = {"plain": plain}
    return found


class Wide(Net):
    """Enough parameters for several of the buckets in which gradients travel."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 1024), nn.Linear(1024, 1024)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.second(self.first(batch[0])).pow(2).mean()
        self.log("loss", loss)
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        self.digests.append(float(sum(p.double().sum() for p in self.parameters())))


@case
def compiled_fit(world: int) -> Any:
    counters.clear()
    module = Wide()
    strategy = DDPStrategy(bucket_cap_mb=1) if world > 1 else "auto"
    compiled = {"backend": "aot_eager"}
    found = fitted(world, module, max_epochs=2, strategy=strategy, compile=compiled)
    return {
        **found,
        "weights": module.second.weight[:4, :4].flatten().tolist(),
        "graphs": counters["stats"]["unique_graphs"],
        "breaks": sum(counters["graph_break"].values()),
    }


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


class GuideGan(Gan):
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
        for kind in (Gan, GuideGan, OneByHand)
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


class Late(Net):
    """Trains nothing in its first epoch."""

    def on_train_epoch_start(self) -> None:
        self.requires_grad_(self.current_epoch > 0)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        return loss if self.current_epoch else None


@case
def late_fit(world: int) -> Any:
    module = Late().requires_grad_(False)
    return fitted(world, module, max_epochs=3)


class ThawedInside(Net):
    """Trains its first layer from the middle of an epoch on."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.first.requires_grad_(self.global_step >= 3)


@case
def thawed_fit(world: int) -> Any:
    module = ThawedInside()
    module.first.requires_grad_(False)
    return fitted(world, module, max_epochs=3)


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


class CountingDDP(DDPStrategy):
    """Counts its reducers."""

    reducers = 0

    def _wrap(self) -> None:
        self.reducers += 1
        super()._wrap()


@case
def averaged_fit(world: int) -> Any:
    """Weights are averaged, and statistics of layers computed anew by forwards alone."""
    module, strategy = Normed(), CountingDDP(static_graph=True)
    averaging = StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1)
    trainer = quiet(
        world,
        max_epochs=3,
        callbacks=[averaging],
        strategy=strategy if world > 1 else "auto",
    )
    trainer.fit(module, DataLoader(numbered(24), 12 // world))
    batches = int(module.norm.num_batches_tracked)
    return {"weights": weights(module), "reducers": strategy.reducers, "seen": batches}


class Frozen(Normed):
    """Its statistics stay, so that synchronized layers can compute on CPUs too."""

    def on_train_start(self) -> None:
        self.norm.eval()
        self.kinds = [type(self.norm).__name__]
        in_optimizer = self.optimizers().param_groups[0]["params"]
        self.is_optimized = any(p is self.norm.weight for p in in_optimizer)
        self.keys = list(self.state_dict())


@case
def synced_layers(world: int) -> Any:
    module = Frozen()
    keys = list(module.state_dict())
    trainer = quiet(world)
    trainer.strategy.sync_batchnorm = True
    found = {}
    # Asks for GPUs, which frozen layers do not need.
    check = mock.patch.object(
        DistributedDataParallel, "_passing_sync_batchnorm_handle", return_value=None
    )
    for fn in ("fit", "validate"):
        with check:
            getattr(trainer, fn)(module, DataLoader(numbered(24), 4))
        module.kinds.append(type(module.norm).__name__)
        found[fn] = [float(module.norm.weight.sum()), module.keys == keys]
    return {**found, "kinds": module.kinds, "is_optimized": module.is_optimized}


class Unused(Net):
    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.ModuleDict({"part": nn.Linear(1, 1)})


@case
def unused_parameters(world: int) -> Any:
    found = {}
    strategy = "ddp_find_unused_parameters_true" if world > 1 else "auto"
    found["allowed"] = fitted(world, Unused(), strategy=strategy)["weights"]
    for name, flags in {"notes": {}, "notes_of_last": {"max_steps": 1}}.items():
        try:
            fitted(world, Unused(), **flags)
        except RuntimeError as error:
            found[name] = getattr(error, "__notes__", [])
    return found


class Silent(Net):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return None


class HalfSilent(Named):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return {**super().training_step(batch, batch_idx), "second": None}


@case
def loss_of_none(world: int) -> Any:
    found = {}
    for module in (Silent(), HalfSilent()):
        try:
            fitted(world, module)
        except MisconfigurationException as error:
            found[type(module).__name__] = str(error)
    return found


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
