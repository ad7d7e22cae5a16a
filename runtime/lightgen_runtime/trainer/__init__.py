"""The `Trainer`: flags in, a run out."""

from lightgen_runtime.trainer.trainer import Trainer
from lightgen_runtime.utilities.seed import seed_everything

__all__ = ["Trainer", "seed_everything"]
