"""What `Trainer(plugins=...)` takes, under the path that Lightning users know."""

from lightgen_runtime.plugins.io import (
    AsyncCheckpointIO,
    CheckpointIO,
    DistributedCheckpointIO,
    TorchCheckpointIO,
)
from lightgen_runtime.plugins.precision import (
    DoublePrecision,
    HalfPrecision,
    MixedPrecision,
    Precision,
)

__all__ = [
    "AsyncCheckpointIO",
    "CheckpointIO",
    "DistributedCheckpointIO",
    "DoublePrecision",
    "HalfPrecision",
    "MixedPrecision",
    "Precision",
    "TorchCheckpointIO",
]
