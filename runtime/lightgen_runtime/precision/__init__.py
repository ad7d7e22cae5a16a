"""Which number formats a run computes in."""

from lightgen_runtime.precision.base import Precision

__all__ = ["Precision"]
