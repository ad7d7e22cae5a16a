"""Making a module where, and as what, its run needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from lightgen_runtime.precision import Precision


@contextmanager
def tensors_made_for(
    device: torch.device, precision: Precision, empty_init: bool
) -> Iterator[None]:
    """Make tensors on a device and in a precision's type inside.

    Args:
        device: Where to.
        precision: The run's.
        empty_init: Whether to leave parameters as memory happens to be, because a
            checkpoint is going to fill them.
    """
    without = _NoInitialization() if empty_init else nullcontext()
    with precision.module_init_context(), device, without:
        yield


class _NoInitialization(TorchFunctionMode):
    """Turns the functions of `torch.nn.init` into ones that do nothing."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return function(*args, **kwargs)
