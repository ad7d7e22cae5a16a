"""A run holds no more after many steps than after few."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from test_step_budget import DEFAULTS, EpochLogger, train
from torch.utils.data import DataLoader

from lightgen_runtime import Callback

STEPS_AN_EPOCH = 50
EARLY, LATE = 10, 30  # epochs: the 500th and the 1500th step


class Held(NamedTuple):
    """What the process holds that Python knows of.

    Attributes:
        tensors: All there are.
        objects: What the garbage collector watches.
        blocks: Pieces of memory, those of plain numbers and strings included.
    """

    tensors: int
    objects: int
    blocks: int


class Census(Callback):
    """Counts at the end of two epochs, when equal work lies behind both."""

    def __init__(self) -> None:
        self.found: list[Held] = []

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch + 1 in (EARLY, LATE):
            self.found.append(count())


def count() -> Held:
    gc.collect()
    objects = gc.get_objects()
    tensors = sum(issubclass(type(found), torch.Tensor) for found in objects)
    return Held(tensors, len(objects), sys.getallocatedblocks())


def test_memory_is_flat_between_the_500th_and_the_1500th_step(tmp_path: Path) -> None:
    census = Census()
    flags = {**DEFAULTS, "callbacks": [census], "log_every_n_steps": 10}
    batches = DataLoader(torch.randn(8 * STEPS_AN_EPOCH, 4), batch_size=8)
    train(EpochLogger(3), batches, tmp_path, **{**flags, "max_epochs": LATE})
    early, late = census.found
    assert late.tensors == early.tensors
    # Something kept a step would be a thousand, something kept an epoch twenty.
    assert abs(late.objects - early.objects) < 20
    assert abs(late.blocks - early.blocks) < 500
