"""The mark by which the Trainer knows a callback that writes checkpoints."""

from lightgen_runtime.callbacks.callback import Callback


class Checkpoint(Callback):
    """Run after every other callback, so that saved state includes theirs."""
