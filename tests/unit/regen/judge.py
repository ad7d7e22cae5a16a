"""Says whether a merged block is right, by running it beside what it should be.

What it should be is the new block with the user's edits made on it afresh, where they
still find what they edit; edits that change nothing a run could show may be left out.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from blocks import EPOCHS, STEPS, rates
from corpus import LAST, NEUTRAL, Pair, edited
from torch import nn

Observation = tuple[Any, ...]


def expected_text(pair: Pair, new: str) -> str | None:
    """Return the new block as the user would have edited it; None if that is gone."""
    edits = [name for name in pair.edits if name not in LAST]
    text = new
    for name in edits:
        changed = edited(text, (name,))
        if changed is None and name not in NEUTRAL:
            return None
        text = changed or text
    return text


class Wrapper:
    """What a user may put around an optimizer: it only remembers."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner


def observe(text: str) -> Observation:
    """Run a block and return everything about it that matters."""
    namespace: dict[str, Any] = {}
    exec(text.replace("\r\n", "\n"), namespace)
    torch.manual_seed(0)
    module = namespace["Module"]()
    module.embedding = nn.Embedding(4, 3)
    module.body = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    module.head = nn.Linear(3, 2)
    module.trainer = SimpleNamespace(
        estimated_stepping_batches=STEPS, max_epochs=EPOCHS
    )
    module.hparams = SimpleNamespace(lr=0.1, weight_decay=0.05)
    module.marks = []
    module.kept = None

    def wrap(optimizer: Any) -> Any:
        module.marks.append(f"wrapped {type(optimizer).__name__}")
        return optimizer

    module.wrap = wrap
    returned = module.configure_optimizers()
    names = {id(p): name for name, p in module.named_parameters()}
    frozen = sorted(n for n, p in module.named_parameters() if not p.requires_grad)
    optimizer, configs = _parts(returned)
    kept = module.kept is optimizer
    groups = [_group(group, names) for group in optimizer.param_groups]
    seen = [_schedule(config, optimizer) for config in configs]
    return type(optimizer).__name__, groups, frozen, seen, module.marks, kept


def _parts(returned: Any) -> tuple[Any, list[Any]]:
    if isinstance(returned, tuple):
        (optimizer,), configs = returned
        return optimizer, list(configs)
    config = returned.get("lr_scheduler")
    return returned["optimizer"], [config] if config is not None else []


def _group(group: dict[str, Any], names: dict[int, str]) -> dict[str, Any]:
    parameters = sorted(names[id(p)] for p in group["params"])
    return {**group, "params": parameters}


def _schedule(config: dict[str, Any], optimizer: Any) -> Any:
    scheduler = config["scheduler"]
    rest = {key: value for key, value in config.items() if key != "scheduler"}
    steps = STEPS if config["interval"] == "step" else EPOCHS
    is_one_cycle = type(scheduler).__name__ == "OneCycleLR"
    curve = rates(scheduler, optimizer, steps - is_one_cycle)
    return type(scheduler).__name__, rest, curve
