"""Checkpoints as files."""

from lightgen_runtime.io.async_checkpoint_io import AsyncCheckpointIO
from lightgen_runtime.io.checkpoint_io import CheckpointIO, TorchCheckpointIO
from lightgen_runtime.io.distributed_checkpoint_io import (
    DistributedCheckpointIO,
    consolidate,
)

__all__ = [
    "AsyncCheckpointIO",
    "CheckpointIO",
    "DistributedCheckpointIO",
    "TorchCheckpointIO",
    "consolidate",
]
