"""Finds the project that encloses a folder."""

from __future__ import annotations

import os
from pathlib import Path

from lightgen.errors import ProjectNotFoundError, UntrustedProjectError
from lightgen.project.journal import JOURNAL_FOLDER, recover
from lightgen.project.state import STATE_PATH


def find_root(start: Path) -> Path:
    """Return the nearest folder at or above `start` that holds a project.

    An interrupted write met on the way is undone first.

    Raises:
        ProjectNotFoundError: If no folder up to the top is a project.
        UntrustedProjectError: If it lies above `start` and is another user's.
    """
    for folder in (start, *start.parents):
        if os.path.lexists(folder / JOURNAL_FOLDER):
            recover(folder)
        if (folder / STATE_PATH).is_file():
            if folder != start:
                _check_owner(folder)
            return folder
    raise ProjectNotFoundError(
        "this is not inside a project made by lightgen",
        where=str(start),
        accepted=f"a folder with `{STATE_PATH}` in it or above it",
        todo="cd into a project, or make one: lightgen new mymodel",
    )


def _check_owner(root: Path) -> None:
    """Refuse to run what somebody else put above the folder that the user is in."""
    if os.name == "posix" and root.stat().st_uid != os.getuid():
        raise UntrustedProjectError(
            "the project around this folder belongs to another user",
            where=str(root),
            accepted="a project of your own, or one whose top folder you stand in",
            todo="if you trust its code, cd there and try again",
        )
