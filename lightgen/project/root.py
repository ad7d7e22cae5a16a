"""Finds the project that encloses a folder."""

from __future__ import annotations

from pathlib import Path

from lightgen.errors import ProjectNotFoundError
from lightgen.project.journal import JOURNAL_FOLDER, recover
from lightgen.project.state import STATE_PATH


def find_root(start: Path) -> Path:
    """Return the nearest folder at or above `start` that holds a project.

    An interrupted write met on the way is undone first.

    Raises:
        ProjectNotFoundError: If no folder up to the top is a project.
    """
    for folder in (start, *start.parents):
        if (folder / JOURNAL_FOLDER).is_dir():
            recover(folder)
        if (folder / STATE_PATH).is_file():
            return folder
    raise ProjectNotFoundError(
        "this is not inside a project made by lightgen",
        where=str(start),
        accepted=f"a folder with `{STATE_PATH}` in it or above it",
        todo="cd into a project, or make one: lightgen new mymodel",
    )
