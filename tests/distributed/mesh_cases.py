"""Processes in a mesh, on which `configure_model` shares the layers out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from sharded_net import Deep, data, fitted, sharded_case, weights
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.utils.data import DataLoader
from trial_net import numbered, quiet

from lightgen_runtime.precision import MixedPrecision
from lightgen_runtime.strategies import ModelParallelStrategy
from lightgen_runtime.utilities.exceptions import MisconfigurationException


class Columns(Deep):
    """Wide layers lie in parts in both processes; the rest is whole in each."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.up, self.down = torch.nn.Linear(7, 6), torch.nn.Linear(6, 7)
        self.numbers: list[int] = []

    def configure_model(self) -> None:
        if self.device_mesh is None or isinstance(self.up.weight, DTensor):
            return  # called in every run
        mesh = self.device_mesh["tensor_parallel"]
        plan = {"up": ColwiseParallel(), "down": RowwiseParallel()}
        parallelize_module(self, mesh, plan)
        if self.device_mesh["data_parallel"].size() > 1:
            fully_shard(self, mesh=self.device_mesh["data_parallel"])

    def forward(self, x: Any) -> Any:
        x = self.before(x)
        x = x + self.down(torch.relu(self.up(x)))
        for block in self.blocks:
            x = block(x)
        return self.after(x).squeeze(1) + self.shift.sum()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.numbers += batch[1].tolist()
        return super().training_step(batch, batch_idx)


@sharded_case
def tensor_parallel(world: int) -> Any:
    module = Columns()
    found = fitted_alike(world, module, 1, gradient_clip_val=0.05)
    return {**found, "numbers": module.numbers}


@sharded_case
def tensor_parallel_by_value(world: int) -> Any:
    clipped = {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}
    return fitted_alike(world, Columns(), 1, **clipped)


@sharded_case
def data_parallel(world: int) -> Any:
    strategy = ModelParallelStrategy(world, 1)
    return fitted(world, Columns(), strategy, gradient_clip_val=0.05)


def fitted_alike(world: int, module: Columns, shares: int, **flags: Any) -> Any:
    """Fit on batches that all processes read alike."""
    trainer = quiet(
        world,
        strategy="model_parallel" if world > 1 else "auto",
        max_epochs=3,
        **flags,
    )
    trainer.fit(module, data(shares), DataLoader(numbered(10), 2))
    metrics = trainer.callback_metrics
    trainer.predict(module, DataLoader(numbered(10), 2))
    batches = trainer.predict_loop.of_all_processes(trainer.strategy)
    return {
        "weights": weights(module),
        "steps": trainer.global_step,
        "seen": float(metrics["seen"]),
        "val": float(metrics["val"]),
        "order": torch.cat([numbers for numbers, _ in batches]).tolist(),
        "sum": float(trainer.strategy.reduce(torch.ones(()), reduce_op="sum")),
    }


@sharded_case
def mesh_checkpoints(world: int) -> Any:
    strategy = "model_parallel" if world > 1 else "auto"
    path = Path(f"mesh_by_{world}.ckpt")
    trainer = quiet(world, strategy=strategy, max_epochs=2)
    trainer.fit(Columns(), data(1))
    trainer.save_checkpoint(path)
    found = {}
    for source in sorted({path, Path("mesh_by_1.ckpt")}):
        module = Columns(seed=1)
        trainer = quiet(world, strategy=strategy, max_epochs=4)
        trainer.fit(module, data(1), ckpt_path=source)
        found[source.name] = weights(module)
    return found


class Half(Columns):
    def configure_model(self) -> None:
        fully_shard(self.blocks[0], mesh=self.device_mesh["data_parallel"])


class Again(Columns):
    """Shares its layers out in every run anew."""

    def configure_model(self) -> None:
        mesh = self.device_mesh["tensor_parallel"]
        parallelize_module(self, mesh, {"up": ColwiseParallel()})


@sharded_case
def wrong_meshes(world: int) -> Any:
    if world == 1:
        return None
    found = {"Again": shared_out_twice(world), "Scaled": scaled(world)}
    for make, data_size in ((Deep, 1), (Half, 2)):
        strategy = ModelParallelStrategy(data_size, world // data_size)
        try:
            quiet(world, strategy=strategy).fit(make(), data(world))
        except MisconfigurationException as error:
            found[make.__name__] = str(error)
    return found


def shared_out_twice(world: int) -> str:
    module = Again()
    trainer = quiet(world, strategy="model_parallel", max_epochs=0)
    trainer.fit(module, data(1))
    return error_of(trainer, module)


def scaled(world: int) -> str:
    """Whole parameters beside some in parts, with a scaler."""
    precision = MixedPrecision("16-mixed", "cpu")
    trainer = quiet(world, strategy="model_parallel", plugins=[precision])
    return error_of(trainer, Columns())


def error_of(trainer: Any, module: Columns) -> str:
    try:
        trainer.fit(module, data(1))
    except RuntimeError as error:
        return "\n".join([str(error), *getattr(error, "__notes__", [])])
    return ""
