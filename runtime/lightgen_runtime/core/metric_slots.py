"""One logged key of one hook: its last value, and its running reduction."""

from __future__ import annotations

import numbers
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from lightgen_runtime.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from lightgen_runtime.core.metrics import LogContext, LogScope


class LogOptions(NamedTuple):
    """The resolved arguments of one `self.log` call site."""

    on_step: bool
    on_epoch: bool
    prog_bar: bool
    logger: bool
    reduce_fx: str
    enable_graph: bool
    sync_dist: bool = False
    rank_zero_only: bool = False


class MetricSlot:
    """One logged key of one hook: its last value and its running reduction.

    Attributes:
        agreed: The epoch's reduction over all processes, once they have exchanged it.
        site: Where it is logged, as `file:line`; empty if it has not been in this run.
    """

    __slots__ = (
        "agreed",
        "call",
        "hook",
        "last",
        "loader",
        "name",
        "options",
        "site",
        "suffix",
        "total",
        "weight",
    )

    def __init__(
        self,
        name: str,
        suffix: str,
        call: tuple[Any, ...] | None,
        options: LogOptions,
        scope: LogScope,
    ) -> None:
        self.name = name
        self.suffix = suffix
        self.call = call
        self.options = options
        self.hook = scope.hook
        self.loader = scope.loader
        self.site = ""
        self.agreed: Any = None
        self.last: Any = None
        self.total: Any = 0.0
        self.weight: float = 0.0

    @property
    def sync_group(self) -> Any:
        """The process group to reduce over; None is that of all processes."""
        return self.call[7] if self.call and self.options.sync_dist else None

    def update(self, value: Any, batch_size: int | None, context: LogContext) -> None:
        """Take one value in.

        Args:
            value: Number, or tensor of one element.
            batch_size: Weight of the value in a mean; None takes the batch's size.
            context: Where the run stands.

        Cost: no host sync; at most one small tensor operation.
        """
        raise NotImplementedError

    def one_element(self, value: Tensor) -> Tensor:
        """Return a tensor of one element without its dimensions."""
        check_value(self.name, value)
        return value.reshape(())

    def step_result(self) -> Any:
        """Return the last value: a number, a 0-d tensor, or None if there is none."""
        return self.last

    def result(self) -> Any:
        """Return the reduction over the epoch so far: a number or a 0-d tensor."""
        return self.total

    def reset(self) -> None:
        """Start a new epoch: nothing has been logged yet."""
        self.agreed = None
        self.last = None
        self.total = 0.0
        self.weight = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the slot as plain data, its tensors copied."""
        return {
            "hook": self.hook,
            "loader": self.loader,
            "name": self.name,
            "suffix": self.suffix,
            "options": self.options._asdict(),
            "last": copied(self.last),
            "total": copied(self.total),
            "weight": self.weight,
        }


class MeanSlot(MetricSlot):
    """Mean over the epoch, each value weighted by its batch's size."""

    __slots__ = ()

    def update(self, value: Any, batch_size: int | None, context: LogContext) -> None:
        """See `MetricSlot.update`."""
        options = self.options
        if isinstance(value, Tensor):
            if value.ndim:
                value = self.one_element(value)
            # A view would keep all of what it is a view of alive.
            copy = context.keep or value._base is not None
            if not options.enable_graph:
                value = value.detach()
            if options.on_step:
                self.last = value.clone() if copy else value
        else:
            self.last = value
        if not options.on_epoch:
            return
        if batch_size is None:
            batch_size = context.batch_size
            if batch_size is None:
                batch_size = context.size_of_batch()
        self.weight += batch_size
        total = self.total
        if isinstance(total, Tensor) and isinstance(value, Tensor):
            total.add_(value, alpha=batch_size)
        else:
            self.total = total + wide(value) * batch_size

    def result(self) -> Any:
        """See `MetricSlot.result`."""
        return self.total / self.weight if self.weight else float("nan")


class FoldSlot(MetricSlot):
    """Sum, minimum or maximum over the epoch, unweighted."""

    __slots__ = ()

    def update(self, value: Any, batch_size: int | None, context: LogContext) -> None:
        """See `MetricSlot.update`."""
        if isinstance(value, Tensor):
            if value.ndim:
                value = self.one_element(value)
            if not self.options.enable_graph:
                value = value.detach()
            self.last = value.clone()
        else:
            self.last = value
        if self.options.on_epoch:
            value = wide(value)
            self.total = self.fold(self.total, value) if self.weight else copied(value)
            self.weight += 1.0

    @staticmethod
    def fold(total: Any, value: Any) -> Any:
        """Combine what was seen so far with one more value."""
        raise NotImplementedError


class SumSlot(FoldSlot):
    """Sum over the epoch."""

    __slots__ = ()

    @staticmethod
    def fold(total: Any, value: Any) -> Any:
        """Add."""
        return total + value


class MaxSlot(FoldSlot):
    """Largest value of the epoch."""

    __slots__ = ()

    @staticmethod
    def fold(total: Any, value: Any) -> Any:
        """Keep the larger."""
        if isinstance(total, Tensor) or isinstance(value, Tensor):
            return torch.maximum(torch.as_tensor(total), torch.as_tensor(value))
        return max(total, value)


class MinSlot(FoldSlot):
    """Smallest value of the epoch."""

    __slots__ = ()

    @staticmethod
    def fold(total: Any, value: Any) -> Any:
        """Keep the smaller."""
        if isinstance(total, Tensor) or isinstance(value, Tensor):
            return torch.minimum(torch.as_tensor(total), torch.as_tensor(value))
        return min(total, value)


class ObjectSlot(MetricSlot):
    """A metric object of torchmetrics, which keeps its own state and reduction."""

    __slots__ = ()

    def update(self, value: Any, batch_size: int | None, context: LogContext) -> None:
        """Remember the object; the user has updated it already."""
        self.last = value
        self.weight = 1.0

    def step_result(self) -> Any:
        """Return the value of the last `forward`, None if only `update` was called."""
        return self.last._forward_cache

    def result(self) -> Any:
        """Return the value over everything since the last reset."""
        return self.last.compute()

    def reset(self) -> None:
        """Start a new epoch of the object too."""
        if self.weight:
            self.last.reset()
        self.agreed = None
        self.last = None
        self.weight = 0.0


SLOT_TYPES: dict[str, type[MetricSlot]] = {
    "mean": MeanSlot,
    "sum": SumSlot,
    "max": MaxSlot,
    "min": MinSlot,
}


def is_metric_object(value: Any) -> bool:
    """Tell an object of torchmetrics, without importing the package."""
    torchmetrics = sys.modules.get("torchmetrics")
    return torchmetrics is not None and isinstance(value, torchmetrics.Metric)


def check_value(name: str, value: Any) -> None:
    """Refuse what is neither a number, a tensor of one element nor a metric object."""
    if is_metric_object(value):
        return
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise MisconfigurationException(
                f"`self.log({name!r}, ...)` got a tensor of shape {tuple(value.shape)}; a "
                "logged value has one element. Reduce it first, e.g. with `.mean()`."
            )
    elif isinstance(value, Mapping):
        raise MisconfigurationException(
            f"`self.log({name!r}, ...)` got a mapping. Use `self.log_dict` for several "
            "metrics at once."
        )
    elif not isinstance(value, numbers.Number):
        raise MisconfigurationException(
            f"`self.log({name!r}, ...)` got {type(value).__name__}; a number or a tensor "
            "of one element is accepted."
        )


def copied(value: Any, device: torch.device | None = None) -> Any:
    """Return a copy of a tensor, on a device; anything else as it is."""
    if not isinstance(value, Tensor):
        return value
    return value.detach().to(device or value.device, copy=True)


def wide(value: Any) -> Any:
    """Give sums at least single precision, and numbers double."""
    if isinstance(value, Tensor):
        return value if value.dtype == torch.float64 else value.float()
    return float(value)
