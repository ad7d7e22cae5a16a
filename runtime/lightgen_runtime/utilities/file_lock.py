"""Locks that the system takes back from a process that dies."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Whoever holds a folder's lock writes a small file. After ten seconds, a machine hangs.
_ATTEMPTS = 2000
_PAUSE_S = 0.005
FOLDER_LOCK = ".manifest.lock"
_threads = threading.Lock()


def try_lock(descriptor: int) -> bool | None:
    """Lock an open file until it is closed.

    Args:
        descriptor: Of the file, open for writing.

    Returns:
        Whether it is locked now; False if somebody else has it, None where files cannot be
        locked.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    # Between opening and locking, its last owner may have removed it.
    return os.fstat(descriptor).st_nlink > 0


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Keep others that ask for the same folder out meanwhile.

    Where files cannot be locked, or one is held for more than ten seconds, only the other
    threads of this process are kept out.

    Args:
        folder: Gets a hidden file, which is removed at the end.
    """
    path = folder / FOLDER_LOCK
    with _threads:
        descriptor = _acquire(path)
        try:
            yield
        finally:
            if descriptor is not None:
                try:
                    path.unlink(missing_ok=True)
                finally:
                    os.close(descriptor)


def _acquire(path: Path) -> int | None:
    for _ in range(_ATTEMPTS):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        locked = try_lock(descriptor)
        if locked:
            return descriptor
        os.close(descriptor)
        if locked is None:
            path.unlink(missing_ok=True)
            break
        time.sleep(_PAUSE_S)
    return None
