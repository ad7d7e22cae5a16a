"""What a run computes in."""

from lightgen_runtime.precision import (
    DoublePrecision,
    HalfPrecision,
    MixedPrecision,
    Precision,
)

__all__ = ["DoublePrecision", "HalfPrecision", "MixedPrecision", "Precision"]
