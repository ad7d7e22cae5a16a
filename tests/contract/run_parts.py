"""What a drawn run is made of besides the package's own classes."""

from __future__ import annotations

from typing import Any

import torch
from random_runs import Plan
from torch.optim.lr_scheduler import (
    ExponentialLR,
    LambdaLR,
    ReduceLROnPlateau,
    StepLR,
)
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, IterableDataset


class Stream(IterableDataset[torch.Tensor]):
    """Rows without a length."""

    def __init__(self, rows: torch.Tensor) -> None:
        self.rows = rows

    def __iter__(self) -> Any:
        return iter(self.rows)


class Batches:
    """A loader that is nothing but a sized iterable."""

    def __init__(self, batches: Any) -> None:
        self.batches = batches

    def __iter__(self) -> Any:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def make_loader(spec: dict[str, Any], seed: int) -> Any:
    """Return a loader of rows whose sums are exact."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(-8, 9, (spec["rows"], 4), generator=generator) / 8
    if spec["kind"] == "own":
        return Batches(rows.split(spec["batch"]))
    if spec["kind"] == "stream":
        return DataLoader(Stream(rows), batch_size=spec["batch"])
    return DataLoader(
        rows,  # type: ignore[arg-type]
        batch_size=spec["batch"],
        shuffle=spec["kind"] == "shuffled",
    )


def make_optimizers(module: Any, plan: Plan) -> Any:
    """Return the drawn form of `configure_optimizers`."""
    spec = plan["optimizer"]
    if plan["mode"] == "manual 2":
        first = make_optimizer(module.first.parameters(), spec["kind"])
        second = make_optimizer(module.second.parameters(), spec["kind"])
        return [first, second], [StepLR(first, 2, 0.5)]
    optimizer = make_optimizer(module.parameters(), spec["kind"])
    configs = [make_scheduler(optimizer, each) for each in spec["schedulers"]]
    if spec["form"] == "list":
        return [optimizer]
    if spec["form"] == "lists":
        return [optimizer], configs
    if spec["form"] == "dict" and configs:
        return {"optimizer": optimizer, "lr_scheduler": configs[0]["scheduler"]}
    if spec["form"] == "dict":
        return {"optimizer": optimizer}
    if spec["form"] == "dict in dict":
        return {"optimizer": optimizer, "lr_scheduler": configs[0]}
    return optimizer


def make_optimizer(parameters: Any, kind: str) -> Any:
    """Return an optimizer of a drawn kind."""
    if kind == "momentum":
        return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    return getattr(torch.optim, kind)(parameters, lr=0.1)


def make_scheduler(optimizer: Any, spec: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a drawn scheduler."""
    made: Any = {
        "step": lambda: StepLR(optimizer, 2, 0.5),
        "lambda": lambda: LambdaLR(optimizer, lambda count: 1 / (1 + count)),
        "exponential": lambda: ExponentialLR(optimizer, 0.75),
        "plateau": lambda: ReduceLROnPlateau(optimizer, patience=0, factor=0.5),
    }
    config = {key: value for key, value in spec.items() if key != "kind"}
    return {"scheduler": made[spec["kind"]](), **config}


def optimize_by_hand(module: Any, loss: Any, batch: Any) -> None:
    """Do what a module with manual optimization does in `training_step`."""
    optimizers = module.optimizers()
    if not isinstance(optimizers, list):
        optimizers.zero_grad()
        module.manual_backward(loss)
        module.clip_gradients(optimizers, 0.5, "norm")
        optimizers.step()
        return
    for optimizer in optimizers:
        module.toggle_optimizer(optimizer)
        optimizer.zero_grad()
        module.manual_backward(module(batch).pow(2).mean())
        optimizer.step()
        module.untoggle_optimizer(optimizer)
    module.lr_schedulers().step()


def with_arguments(body: Any, number: int) -> Any:
    """Return a step that declares so many arguments."""
    if number == 1:
        return lambda self, batch: body(self, batch, None)
    if number == 2:
        return lambda self, batch, batch_idx: body(self, batch, batch_idx)
    return lambda self, batch, batch_idx, dataloader_idx=0: body(
        self, batch, batch_idx, dataloader_idx
    )


def log(
    module: Any, entry: Any, batch: Any, batch_idx: int, loss: Any, others: Any
) -> None:
    """Log a drawn entry; values are exact in single precision, and so are their means."""
    options = {k: v for k, v in entry.items() if k not in ("name", "value", "own name")}
    name = entry["name"]
    if entry.get("own name") and others:
        name = f"{name} of {others[0]}"
    values = {
        "number": lambda: batch_idx * 0.5 + 0.25,
        "count": lambda: batch_idx + 2,
        "step": lambda: float(module.global_step),
        "epoch": lambda: torch.tensor(float(module.current_epoch)),
        "loss": lambda: torch.round(loss * 64) / 64,
        "batch": lambda: torch.tensor(sum_of(batch)),
        "one element": lambda: torch.tensor([sum_of(batch)]),
    }
    module.log(name, values[entry["value"]](), **options)


def sum_of(batch: Any) -> float:
    """Return the exact sum of the rows of a batch."""
    leaves = [leaf for leaf in tree_leaves(batch) if isinstance(leaf, torch.Tensor)]
    return float(sum(leaf.sum() for leaf in leaves))


def described(value: Any) -> Any:
    """Return what of a hook's argument is compared."""
    if isinstance(value, torch.Tensor) and value.ndim > 1:
        return ["batch", sum_of(value)]
    if isinstance(value, dict) and "state_dict" in value:
        return ["checkpoint", value["epoch"], value["global_step"]]
    if isinstance(value, dict) and set(value) <= {"loss", "sum"}:
        return value
    if isinstance(value, (list, tuple, dict)):
        return ["collection", sum_of(value)]
    if isinstance(value, torch.optim.Optimizer):
        return ["optimizer", [g.get("lr") for g in value.param_groups]]
    if value is None or isinstance(value, (bool, int, float, str, torch.Tensor)):
        return value
    return type(value).__name__ if not callable(value) else "callable"
