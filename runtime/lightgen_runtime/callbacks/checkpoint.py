"""The mark by which the Trainer knows a callback that writes checkpoints."""

from typing import Any

from lightgen_runtime.callbacks.callback import Callback


class Checkpoint(Callback):
    """Run after every other callback, so that saved state includes theirs."""

    def record_of(self, path: str) -> dict[str, Any] | None:
        """Return what a file is kept for, if this callback is about to write it.

        Args:
            path: Of the file.

        Returns:
            Who keeps it (`kept_by`), its `score` and its `role`: "best", "last",
            "interrupted", "partial" or None.
        """
        return None
