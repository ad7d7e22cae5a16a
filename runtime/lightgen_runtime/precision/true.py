"""What the precisions have in common that hold and compute everything in one dtype."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from lightgen_runtime.precision.base import Precision
from lightgen_runtime.precision.default_dtype import default_dtype
from lightgen_runtime.utilities.map_parts import map_parts


class TruePrecision(Precision):
    """Parameters, batches and new tensors in one floating-point dtype.

    Args:
        dtype: That dtype.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype

    def convert_module(self, module: nn.Module) -> nn.Module:
        """Convert floating-point parameters and buffers."""
        return module.to(dtype=self._dtype)

    def convert_input(self, data: Any) -> Any:
        """Convert the floating-point tensors of a batch; whole numbers stay."""

        def convert(tensor: Tensor) -> Tensor:
            return tensor.to(self._dtype) if tensor.is_floating_point() else tensor

        return map_parts(data, Tensor, convert)

    def module_init_context(self) -> AbstractContextManager[Any]:
        """Make this dtype the default."""
        return default_dtype(self._dtype)

    def forward_context(self) -> AbstractContextManager[Any]:
        """Make this dtype the default."""
        return default_dtype(self._dtype)
