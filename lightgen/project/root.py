"""Finds the project that encloses a folder."""

from __future__ import annotations

import os
from pathlib import Path

from lightgen.errors import LightgenError, ProjectNotFoundError, UntrustedProjectError
from lightgen.project.journal import JOURNAL_FOLDER, recover
from lightgen.project.state import STATE_PATH


def find_root(start: Path) -> Path:
    """Return the nearest folder at or above `start` that holds a project.

    An interrupted write met on the way is undone first.

    Raises:
        ProjectNotFoundError: If no folder up to the top is a project.
        UntrustedProjectError: If it lies above `start` and is another user's.
    """
    root, trouble = look_for_root(start)
    if trouble is not None:
        raise trouble
    return root


def look_for_root(start: Path) -> tuple[Path, LightgenError | None]:
    """Do as `find_root`, and return what keeps a write from being undone.

    Returns:
        The project, and None when no write is left unfinished in it.
    """
    trouble: LightgenError | None = None
    for folder in (start, *start.parents):
        if os.path.lexists(folder / JOURNAL_FOLDER):
            try:
                recover(folder)
            except LightgenError as error:
                trouble = trouble or error
        if (folder / STATE_PATH).is_file():
            if folder != start:
                _check_owner(folder)
            return folder, trouble
    if trouble is not None:
        raise trouble
    raise ProjectNotFoundError(
        "this is not inside a project made by lightgen",
        where=str(start),
        accepted=f"a folder with `{STATE_PATH}` in it or above it",
        todo="cd into a project, or make one: lightgen new mymodel; or take in a module "
        "of your own: lightgen adopt PATH:CLASS",
    )


def find_folder(start: Path) -> Path:
    """Return the folder that a project would be, where lightgen made none.

    That is the nearest folder at or above `start` with a repository, a `pyproject.toml`
    or a `setup.py`; else `start` itself.
    """
    marks = (".git", "pyproject.toml", "setup.py")
    for folder in (start, *start.parents):
        if any((folder / mark).exists() for mark in marks):
            if folder != start:
                _check_owner(folder)
            return folder
    return start


def _check_owner(root: Path) -> None:
    """Refuse to run what somebody else put above the folder that the user is in."""
    if os.name == "posix" and root.stat().st_uid != os.getuid():
        raise UntrustedProjectError(
            "the project around this folder belongs to another user",
            where=str(root),
            accepted="a project of your own, or one whose top folder you stand in",
            todo="if you trust its code, cd there and try again",
        )
