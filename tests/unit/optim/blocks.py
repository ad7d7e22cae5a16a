"""Runs generated blocks: a module that has one, without a trainer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from lightgen.optim.emit import emit
from lightgen.optim.rules import check_spec
from lightgen.optim.schedule import parse_schedule
from lightgen.optim.spec import GroupSpec, OptimSpec, parse_optimizer

STEPS, EPOCHS = 40, 8


def spec_of(
    *optimizers: str,
    schedule: str | dict[str, str] = "none",
    groups: GroupSpec = GroupSpec(),  # noqa: B008 - frozen
    freeze: tuple[str, ...] = (),
) -> OptimSpec:
    """Return a checked specification from what a user would write."""
    texts = {"": schedule} if isinstance(schedule, str) else schedule
    spec = OptimSpec(
        tuple(parse_optimizer(text) for text in optimizers),
        tuple((label, parse_schedule(text)) for label, text in texts.items()),
        groups,
        freeze,
    )
    check_spec(spec)
    return spec


def source_of(spec: OptimSpec, *, manual: bool = False) -> str:
    """Return a file with a class that has the block."""
    text, imports = emit(spec, manual=manual)
    head = "\n".join(imports)
    return f"{head}\n\n\nclass Module(torch.nn.Module):\n{text}"


def module_with(spec: OptimSpec, parts: dict[str, Any], *, manual: bool = False) -> Any:
    """Return a module that has the block, its parts, and what a trainer would tell it."""
    namespace: dict[str, Any] = {}
    exec(source_of(spec, manual=manual), namespace)
    module = namespace["Module"]()
    for name, part in parts.items():
        setattr(module, name, part)
    module.trainer = SimpleNamespace(
        estimated_stepping_batches=STEPS, max_epochs=EPOCHS
    )
    module.hparams = SimpleNamespace(lr=0.1, weight_decay=0.05)
    return module


def rates(scheduler: Any, optimizer: Any, steps: int) -> list[list[float]]:
    """Return each group's learning rate before every step, and after the last."""
    found = [[group["lr"] for group in optimizer.param_groups]]
    for _ in range(steps):
        optimizer.step(lambda: torch.zeros(()))
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            scheduler.step(1.0)
        else:
            scheduler.step()
        found.append([group["lr"] for group in optimizer.param_groups])
    return found
