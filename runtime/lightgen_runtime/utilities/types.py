"""Names for annotations, as Lightning's users import them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

# What a step returns.
STEP_OUTPUT = Tensor | Mapping[str, Any] | None
# What the loader hooks return.
TRAIN_DATALOADERS = Any
EVAL_DATALOADERS = Any
# What `configure_optimizers` deals with.
LRSchedulerType = LRScheduler | ReduceLROnPlateau
LRSchedulerTypeUnion = LRSchedulerType
OptimizerLRScheduler = (
    Optimizer
    | Sequence[Optimizer]
    | tuple[Sequence[Optimizer], Sequence[Any]]
    | Mapping[str, Any]
    | Sequence[Mapping[str, Any]]
    | None
)
