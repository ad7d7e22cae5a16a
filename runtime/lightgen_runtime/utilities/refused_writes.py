"""Files that a full disk or the like refuses: a warning, and the run goes on.

Not for checkpoints, which have an error of their own: `CheckpointWriteError`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightgen_runtime.utilities.rank_zero import rank_zero_warn


class RefusedWrites:
    """Warn of what cannot be written, once, and again where the cause is another one.

    Attributes:
        cause: What the system said the last time; None if it has taken everything.
    """

    def __init__(self) -> None:
        self.cause: str | None = None

    @contextmanager
    def told(self, path: str | Path, then: str) -> Iterator[None]:
        """Turn an `OSError` of the block into a warning.

        Args:
            path: What the block writes.
            then: What becomes of it, as a sentence.
        """
        try:
            yield
        except OSError as error:
            # Its text may name a temporary file, another one each time.
            cause = error.strerror or str(error)
            if cause != self.cause:
                self.cause = cause
                rank_zero_warn(
                    f"`{path}` cannot be written: {cause}. {then}", stacklevel=3
                )
        else:
            self.cause = None
