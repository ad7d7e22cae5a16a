"""The `Trainer`: flags in, a run out."""

from lightgen_runtime.trainer.trainer import Trainer

__all__ = ["Trainer"]
