"""Writes a whole new folder, or nothing.

Everything is written and synced in a sibling folder whose name begins with a dot, then
renamed: one step that either happened or did not. A lock on that folder tells a running
write from a killed one, whose leftovers the next write to the same place removes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from lightgen.errors import ConflictError, WriteError
from lightgen.project.tree import FileTree

_NOT_EMPTY = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR})


def write_folder(root: Path, tree: FileTree) -> None:
    """Create `root`, missing until now, with all files of `tree`.

    Raises:
        WriteError: If the operating system refuses; nothing is left behind.
        ConflictError: If something appeared at `root` meanwhile.
    """
    staging = root.parent / f".{root.name}.lightgen-{secrets.token_hex(4)}"
    try:
        sweep_leftovers(root)
        staging.mkdir()
        with locked(staging):
            fill_folder(staging, tree)
            if os.path.lexists(root):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), root)
            staging.rename(root)
    except BaseException as error:
        shutil.rmtree(staging, ignore_errors=True)
        if isinstance(error, OSError):
            raise refused(error, root) from error
        raise
    sync_folder(root.parent)


def sweep_leftovers(root: Path) -> None:
    """Remove what killed writes to `root` left beside it, as far as that is ours."""
    if sys.platform == "win32":  # pragma: no cover - no lock tells killed from running
        return
    ours = re.compile(rf"\.{re.escape(root.name)}\.lightgen-[0-9a-f]{{8}}")
    for path in root.parent.iterdir():
        if ours.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            with contextlib.suppress(ConflictError, OSError), locked(path):
                shutil.rmtree(path, ignore_errors=True)


def fill_folder(folder: Path, tree: FileTree) -> None:
    """Write all files of `tree` below `folder` and sync each to the disk."""
    put_files(folder, tree)
    for path in [*folder.rglob("*"), folder]:
        if path.is_dir():
            sync_folder(path)
        else:
            sync_file(path)


def put_files(folder: Path, tree: FileTree) -> None:
    """Write all files of `tree` below `folder`, and leave the rest to the system."""
    for relative, file in tree.items():
        path = folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        if file.executable:
            mode = path.stat().st_mode
            # Executable for whoever may read it, as git does on checkout.
            path.chmod(mode | (mode & 0o444) >> 2)


def sync_file(path: Path) -> None:
    """Wait until the contents of `path` are on the disk."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Ask that the names in `folder` survive a power cut."""
    # Some file systems cannot sync a folder. Renames are atomic there all the same, so
    # this adds durability and decides nothing.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder` as this process's own; the system releases it on any death.

    Raises:
        ConflictError: If another process holds it.
    """
    if sys.platform == "win32":  # pragma: no cover - no advisory locks on folders
        yield
        return
    import fcntl

    busy = ConflictError(
        "another lightgen is writing here",
        where=str(folder),
        todo="wait for it to end, then try again",
    )
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError as error:  # removed by another, who held it first
        raise busy from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            present = folder.lstat()
        except (BlockingIOError, FileNotFoundError) as error:
            raise busy from error
        # Between the two calls it may have been removed, or made again by another.
        if not os.path.samestat(os.fstat(descriptor), present):
            raise busy
        yield
    finally:
        os.close(descriptor)


def refused(error: OSError, root: Path) -> WriteError | ConflictError:
    """Turn the operating system's refusal into an error that says what to do."""
    if isinstance(error, FileExistsError) or error.errno in _NOT_EMPTY:
        return ConflictError(
            "files appeared in the target while it was being written",
            where=str(root),
            todo="look at them, then try again",
        )
    return WriteError(
        f"the project could not be written: {error.strerror or error}",
        where=str(error.filename or root),
        accepted="a writable folder with room for a few hundred kilobytes",
        todo="make room or choose another folder; the disk is as it was",
    )
