"""Making a module where, and as what, its run needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

# Precisions in which the parameters themselves have another type.
_DTYPES = {
    "64-true": torch.float64,
    "16-true": torch.float16,
    "bf16-true": torch.bfloat16,
}


@contextmanager
def tensors_made_for(
    device: torch.device, precision: str, empty_init: bool
) -> Iterator[None]:
    """Make tensors on a device and in a precision's type inside.

    Args:
        device: Where to.
        precision: Name of the precision, e.g. "bf16-true".
        empty_init: Whether to leave parameters as memory happens to be, because a
            checkpoint is going to fill them.
    """
    former = torch.get_default_dtype()
    torch.set_default_dtype(_DTYPES.get(precision, former))
    try:
        with device, _NoInitialization() if empty_init else nullcontext():
            yield
    finally:
        torch.set_default_dtype(former)


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
