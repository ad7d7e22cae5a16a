"""Turns paths as the user spells them into paths that can be opened."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from lightgen.errors import UsageError


def working_folder() -> Path:
    """Return the folder that the command was typed in.

    Raises:
        UsageError: If it was removed since.
    """
    try:
        return Path.cwd()
    except FileNotFoundError as error:
        raise UsageError(
            "the folder you are in no longer exists",
            accepted="a folder that is there",
            todo='cd "$PWD", if it was made again',
        ) from error


def absolute_path(given: Path | str, *, where: str) -> Path:
    """Expand `~` and complete `given`, from the folder the command was typed in.

    Args:
        given: The path as the user wrote it; nothing need be there.
        where: The argument or option that it came from.

    Raises:
        UsageError: If no file could be opened by that path, or the folder the command
            was typed in is gone: copier and git need one.
    """
    try:
        path = working_folder() / Path(given).expanduser()
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return path
    except (RuntimeError, OSError) as error:  # RuntimeError: the `~` of nobody
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"`{given}` cannot be used as a path: {reason}",
            where=where,
            accepted="a path that leads to a file or folder which you may open",
            todo="check its spelling, and the permissions and links on the way",
        ) from error
    return path


def writable_folder(given: Path, *, where: str) -> Path:
    """Return the existing folder `given`, links followed.

    Raises:
        UsageError: If it is missing, or not writable.
    """
    folder = absolute_path(given, where=where).resolve()
    if folder.is_dir() and os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return folder
    problem, todo = (
        f"`{folder}` is not writable",
        f"chmod u+rwx {shlex.quote(str(folder))}",
    )
    if not folder.is_dir():
        problem = f"`{given}` is not an existing folder"
        todo = f"mkdir -p {shlex.quote(str(given))}"
    raise UsageError(
        problem,
        where=where,
        accepted="an existing folder that you may write to",
        todo=f"{todo}, or choose another",
    )


def shortest(folder: Path) -> str:
    """Spell `folder` as seen from the working folder, in full where that cannot be."""
    try:
        return os.path.relpath(folder)
    except (OSError, ValueError):  # no working folder; another drive
        return str(folder)
