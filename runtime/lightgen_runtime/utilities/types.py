"""Names for annotations, as Lightning's users import them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from typing_extensions import NotRequired, Required

# What a step returns.
STEP_OUTPUT = Tensor | Mapping[str, Any] | None
# What the loader hooks return.
TRAIN_DATALOADERS = Any
EVAL_DATALOADERS = Any
# What `configure_optimizers` deals with.
LRSchedulerType = LRScheduler | ReduceLROnPlateau
LRSchedulerTypeUnion = LRSchedulerType
LRSchedulerPLType = LRSchedulerType
LRSchedulerTypeTuple = (LRScheduler, ReduceLROnPlateau)
OptimizerLRScheduler = (
    Optimizer
    | Sequence[Optimizer]
    | tuple[Sequence[Optimizer], Sequence[Any]]
    | Mapping[str, Any]
    | Sequence[Mapping[str, Any]]
    | None
)


class LRSchedulerConfigType(TypedDict, total=False):
    """What "lr_scheduler" may be in the dictionary of `configure_optimizers`."""

    scheduler: Required[LRSchedulerTypeUnion]
    name: str | None
    interval: str
    frequency: int
    reduce_on_plateau: bool
    monitor: str | None
    strict: bool


class OptimizerConfig(TypedDict):
    """What `configure_optimizers` may return: an optimizer alone."""

    optimizer: Optimizer


class OptimizerLRSchedulerConfig(TypedDict):
    """What `configure_optimizers` may return: an optimizer and its scheduler."""

    optimizer: Optimizer
    lr_scheduler: LRSchedulerTypeUnion | LRSchedulerConfigType
    monitor: NotRequired[str]
