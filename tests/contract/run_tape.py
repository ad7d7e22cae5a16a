"""Writes down everything a run lets anybody see, as plain data that compares exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Event = tuple[str, Any]

# Attributes of a trainer that code inside hooks reads.
STATE = [
    "global_step",
    "current_epoch",
    "training",
    "validating",
    "sanity_checking",
    "testing",
    "predicting",
    "evaluating",
    "should_stop",
]
# Known once the training loader is there.
COUNTS = [
    "num_training_batches",
    "num_val_batches",
    "num_sanity_val_batches",
    "val_check_batch",
    "estimated_stepping_batches",
    "enable_validation",
    "log_every_n_steps",
    "max_epochs",
    "max_steps",
    "accumulate_grad_batches",
]
METRICS = ["callback_metrics", "logged_metrics", "progress_bar_metrics"]


class Tape:
    """The events of one run, in order."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def note(self, what: str, facts: Any = None) -> None:
        """Write one event down."""
        self.events.append((what, canonical(facts)))

    def note_trainer(
        self, what: str, trainer: Any, counts: list[str], metrics: bool
    ) -> None:
        """Write down the state of a trainer, as seen from a hook."""
        module = trainer.lightning_module
        facts = {name: getattr(trainer, name) for name in STATE}
        if "on_train_batch_end" in what:
            facts["is_last_batch"] = trainer.is_last_batch
        facts["fn"], facts["stage"] = _state(trainer)
        facts["grad"] = torch.is_grad_enabled()
        facts["mode"] = [part.training for part in module.modules()]
        facts["module counters"] = [module.global_step, module.current_epoch]
        self.note(f"{what}: state", facts)
        if counts:
            self.note(f"{what}: counts", {n: getattr(trainer, n) for n in counts})
        for name in METRICS if metrics else []:
            self.note(f"{what}: {name}", dict(getattr(trainer, name)))
        self.note(f"{what}: rates", rates(trainer))

    def note_end(self, what: str, trainer: Any, module: Any, metrics: bool) -> None:
        """Write down what is there after an entry point has returned."""
        self.note(f"{what}: weights", dict(module.state_dict()))
        steps = ["global_step", "current_epoch", "should_stop", "interrupted"]
        self.note(f"{what}: counters", {n: getattr(trainer, n) for n in steps})
        for name in METRICS if metrics else []:
            self.note(f"{what}: {name}", dict(getattr(trainer, name)))
        self.note(f"{what}: rates", rates(trainer))
        gradients = [p.grad for p in module.parameters()]
        self.note(f"{what}: gradients", gradients)

    def note_files(self, what: str, folder: Path) -> None:
        """Write down every checkpoint in a folder, with its counters and weights."""
        for path in sorted(folder.rglob("*.ckpt")):
            file = torch.load(path, weights_only=False)
            where = f"{what}: {path.relative_to(folder)}"
            self.note(f"{where}: counters", [file["epoch"], file["global_step"]])
            loops = file["loops"]["fit_loop"]
            self.note(f"{where}: loops", loops["epoch_loop.state_dict"])
            self.note(f"{where}: weights", dict(file["state_dict"]))
            for name in ("lr_schedulers", "optimizer_states", "callbacks"):
                self.note(f"{where}: {name}", _without_paths(file.get(name), folder))


def rates(trainer: Any) -> list[float]:
    """Return the learning rates of every group."""
    groups = [group for o in trainer.optimizers for group in o.param_groups]
    return [float(group["lr"]) for group in groups if "lr" in group]


def _state(trainer: Any) -> list[Any]:
    found = [trainer.state.fn, trainer.state.stage]
    return [getattr(value, "value", value) for value in found]


def _without_paths(value: Any, folder: Path) -> Any:
    """Cut the folder off every path, so that two folders compare."""
    if isinstance(value, str):
        return value.replace(str(folder), "FOLDER")
    if isinstance(value, Mapping):
        return {
            _without_paths(key, folder): _without_paths(entry, folder)
            for key, entry in value.items()
            if key != "stopping_reason_message"  # in words of its own
        }
    if isinstance(value, (list, tuple)):
        return [_without_paths(entry, folder) for entry in value]
    return value


def canonical(value: Any) -> Any:
    """Return `value` as plain data: dictionaries sorted, tensors as lists of numbers."""
    if isinstance(value, Tensor):
        return canonical(value.detach().tolist())
    if isinstance(value, Mapping):
        entries = [(str(key), canonical(entry)) for key, entry in value.items()]
        return dict(sorted(entries))
    if isinstance(value, (list, tuple, set)):
        return [canonical(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return type(value).__name__
