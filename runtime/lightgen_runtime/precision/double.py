"""Everything in 64 bits."""

from __future__ import annotations

import torch

from lightgen_runtime.precision.true import TruePrecision


class DoublePrecision(TruePrecision):
    """Parameters, batches and computations in 64 bits: `64-true`."""

    precision = "64-true"

    def __init__(self) -> None:
        super().__init__(torch.float64)
