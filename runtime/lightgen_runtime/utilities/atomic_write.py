"""Writing a file so that a reader, a kill or a full disk never sees half of it."""

from __future__ import annotations

import errno
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lightgen_runtime.utilities.exceptions import system_error_behind
from lightgen_runtime.utilities.file_lock import FOLDER_LOCK, try_lock

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")
# Where nothing tells whether a file is still being written: no save takes a day.
_ABANDONED_AFTER_S = 24 * 3600.0
# How file systems say that folders are not synced there, or not by this user.
_NO_FOLDER_SYNC = (
    errno.EACCES,
    errno.EBADF,
    errno.EINVAL,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.EPERM,
)


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Yield a binary stream whose content replaces `path` when the block succeeds.

    The bytes go to a hidden file beside `path`, reach the disk, and only then take its
    name. If the block or the disk fails, the hidden file is removed and what was at
    `path` stays. Missing folders are created. What a killed process leaves is removed by
    `sweep_temporaries`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, stream = _locked_temporary(path)
    try:
        with stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            if os.name != "nt":  # still locked: a sweep must not come in between
                temporary.replace(path)
        if os.name == "nt":  # which renames no open file
            temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        refused = system_error_behind(error)
        if isinstance(error, RuntimeError) and refused is not None:
            raise refused from error
        raise
    sync_folder(path.parent)


def sweep_temporaries(folder: Path) -> None:
    """Remove what killed processes left half written in `folder`.

    Files that a living process writes stay: it holds a lock on them. Where the file system
    has no locks, those younger than a day stay.
    """
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if _TEMPORARY.fullmatch(path.name) or path.name == FOLDER_LOCK:
            try:
                _remove_if_abandoned(path)
            except OSError:
                continue  # gone meanwhile, or somebody else's: no business of this run


def temporary_beside(path: Path) -> Path:
    """Return a free hidden name beside `path`, which a sweep would recognise."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def _locked_temporary(path: Path) -> tuple[Path, BinaryIO]:
    while True:
        temporary = temporary_beside(path)
        # Not `tempfile`: its files are private to the user whatever the umask says.
        stream = temporary.open("xb")
        try:
            if try_lock(stream.fileno()) is not False:
                return temporary, stream
        except BaseException:
            stream.close()
            temporary.unlink(missing_ok=True)
            raise
        stream.close()  # a sweep got hold of it between the two calls


def _remove_if_abandoned(path: Path) -> None:
    with path.open("r+b") as stream:
        locked = try_lock(stream.fileno())
        if locked:
            path.unlink()
    if locked is None and time.time() - path.stat().st_mtime > _ABANDONED_AFTER_S:
        path.unlink()


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    if os.name == "nt":  # Windows cannot open a folder, nor does it need to
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
