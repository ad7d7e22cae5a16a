"""Checkpoints as files."""

from lightgen_runtime.io.async_checkpoint_io import AsyncCheckpointIO
from lightgen_runtime.io.checkpoint_io import CheckpointIO, TorchCheckpointIO

__all__ = ["AsyncCheckpointIO", "CheckpointIO", "TorchCheckpointIO"]
