"""How checkpoints are stored."""

from lightgen_runtime.io import (
    AsyncCheckpointIO,
    CheckpointIO,
    DistributedCheckpointIO,
    TorchCheckpointIO,
)

__all__ = [
    "AsyncCheckpointIO",
    "CheckpointIO",
    "DistributedCheckpointIO",
    "TorchCheckpointIO",
]
