"""Everything in 16 bits."""

from __future__ import annotations

import torch

from lightgen_runtime.precision.names import one_of
from lightgen_runtime.precision.true import TruePrecision

_DTYPES = {"16-true": torch.float16, "bf16-true": torch.bfloat16}


class HalfPrecision(TruePrecision):
    """Parameters, batches and computations in 16 bits: half the memory of `32-true`.

    Updates smaller than about a thousandth (`16-true`) or a hundredth (`bf16-true`) of a
    weight are lost; nothing scales the loss.

    Args:
        precision: "16-true" (`torch.float16`) or "bf16-true" (`torch.bfloat16`).

    Raises:
        MisconfigurationException: `precision` is neither.
    """

    def __init__(self, precision: str = "16-true") -> None:
        self.precision = one_of(precision, tuple(_DTYPES), "HalfPrecision")
        super().__init__(_DTYPES[precision])
