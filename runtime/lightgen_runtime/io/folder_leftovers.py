"""What a killed process leaves beside a checkpoint that is a folder."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from pathlib import Path

# Nothing tells whether a folder is still being written: no save takes a day.
_ABANDONED_AFTER_S = 24 * 3600.0


def unfinished(path: Path) -> Path:
    """Return where a folder is while it is written, or removed."""
    return path.with_name(f".{path.name}.part")


def former(path: Path) -> Path:
    """Return where a folder is while another takes its place."""
    return path.with_name(f".{path.name}.former")


def discard(path: Path) -> None:
    """Remove a folder, a file, or a link to either."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path)


def put_back_former(folder: Path) -> None:
    """Give a checkpoint in `folder` its name again, whose replacement was cut off."""
    if not folder.is_dir():
        return
    for path in folder.glob(".*.former"):
        place = path.with_name(path.name[1 : -len(".former")])
        if not place.exists():
            with suppress(OSError):  # not ours to write in: a path still finds it
                path.rename(place)


def sweep_folders(folder: Path) -> None:
    """Put back what was being replaced in `folder`, and remove old halves of folders."""
    if not folder.is_dir():
        return
    put_back_former(folder)
    for path in (*folder.glob(".*.part"), *folder.glob(".*.former")):
        with suppress(OSError):  # gone meanwhile, or somebody else's
            if time.time() - path.lstat().st_mtime > _ABANDONED_AFTER_S:
                discard(path)
