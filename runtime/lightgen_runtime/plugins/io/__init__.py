"""How checkpoints are stored."""

from lightgen_runtime.io import CheckpointIO, TorchCheckpointIO

__all__ = ["CheckpointIO", "TorchCheckpointIO"]
