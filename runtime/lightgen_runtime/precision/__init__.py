"""Which number formats a run computes in."""

from lightgen_runtime.precision.base import Precision
from lightgen_runtime.precision.double import DoublePrecision
from lightgen_runtime.precision.half import HalfPrecision
from lightgen_runtime.precision.mixed import MixedPrecision

__all__ = ["DoublePrecision", "HalfPrecision", "MixedPrecision", "Precision"]
