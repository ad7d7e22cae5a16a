"""Whether a file that a command was asked for may be written where it was asked."""

from __future__ import annotations

from pathlib import Path

from lightgen_runtime.io.store import read_manifest
from lightgen_runtime.utilities.exceptions import (
    MisconfigurationException,
    OutputExistsError,
)


def check_output(path: Path, *, force: bool) -> None:
    """Refuse an output that would replace what somebody still needs.

    Args:
        path: Where to.
        force: Replace a file; never a checkpoint that its folder's manifest lists.

    Raises:
        OutputExistsError: There is something.
        MisconfigurationException: It is in a folder that is not there.
    """
    if not path.parent.is_dir():
        raise MisconfigurationException(
            f"There is no folder `{path.parent}` to write `{path.name}` to. Make it, or "
            "name another with --output."
        )
    if path.name in read_manifest(path.parent):
        raise OutputExistsError(
            f"`{path}` is a checkpoint of a run. Name another file with --output."
        )
    if path.is_dir() or (path.exists() and not force):
        remedy = "" if path.is_dir() else ", or replace it with --force"
        raise OutputExistsError(
            f"`{path}` exists. Name another file with --output{remedy}."
        )
