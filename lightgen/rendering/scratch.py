"""Temporary folders outside the project, and what to say when they cannot be written."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lightgen.errors import WriteError


@contextlib.contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """Create an empty folder that is removed when the context ends.

    Raises:
        WriteError: If there is no place for one.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix=f"lightgen-{purpose}-")
    except OSError as error:
        raise scratch_refused(error) from error
    with folder as path:
        yield Path(path)


def scratch_refused(error: OSError) -> WriteError:
    """Turn the operating system's refusal into an error that says what to do."""
    return WriteError(
        f"a temporary file cannot be written: {error.strerror or error}",
        where=str(error.filename or tempfile.gettempdir()),
        accepted="a temporary folder with some free space",
        todo="make room there, or set TMPDIR to another folder",
    )
