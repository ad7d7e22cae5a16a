"""Learning rate and batch size, found before a run."""

from lightgen_runtime.tuner.tuning import Tuner

__all__ = ["Tuner"]
