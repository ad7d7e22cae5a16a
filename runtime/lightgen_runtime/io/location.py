"""Where checkpoints lie: on a local disk, or behind a scheme such as `s3://`.

Whoever stores or reads files goes through here, with paths as text. What has a scheme is
fsspec's business, which is imported only then.
"""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO, cast

from lightgen_runtime.utilities.atomic_write import atomic_write
from lightgen_runtime.utilities.exceptions import (
    CheckpointNotFoundError,
    CheckpointWriteError,
    MisconfigurationException,
    MissingDependencyError,
    system_error_behind,
)

AnyPath = str | os.PathLike[str]

_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")


def is_remote(path: AnyPath) -> bool:
    """Tell whether `path` has a scheme, as in `s3://bucket/run`."""
    return _SCHEME.match(os.fspath(path)) is not None


def normal(path: AnyPath) -> str:
    """Return `path` as text, a local one with the user's folder in place of `~`."""
    return os.fspath(path) if is_remote(path) else str(Path(path).expanduser())


def absolute(path: AnyPath) -> str:
    """Return what two ways of writing the same path have in common."""
    return os.fspath(path) if is_remote(path) else str(Path(path).resolve())


def join(folder: AnyPath, name: str) -> str:
    """Return the path of `name` in `folder`."""
    if not is_remote(folder):
        return str(Path(folder) / name)
    folder = os.fspath(folder)
    return f"{folder}{name}" if folder.endswith("/") else f"{folder}/{name}"


def split(path: AnyPath) -> tuple[str, str]:
    """Return the folder and the name of `path`."""
    if not is_remote(path):
        return str(Path(path).parent), Path(path).name
    folder, _, name = os.fspath(path).rpartition("/")
    return (f"{folder}/" if folder.endswith(":/") else folder), name


def is_file(path: AnyPath) -> bool:
    """Tell whether there is a file at `path`."""
    if not is_remote(path):
        return Path(path).is_file()
    system, inside = _system(path)
    return bool(system.isfile(inside))


def exists(path: AnyPath) -> bool:
    """Tell whether there is anything at `path`."""
    if not is_remote(path):
        return Path(path).exists()
    system, inside = _system(path)
    return bool(system.exists(inside))


def is_link(path: AnyPath) -> bool:
    """Tell whether `path` only points to another file or folder."""
    return not is_remote(path) and Path(path).is_symlink()


def names_in(folder: AnyPath, *, folders: bool = False) -> list[str]:
    """Return the names of the files in `folder`; none if it is not there.

    Args:
        folder: Where to look.
        folders: Name the folders in it as well.
    """
    if not is_remote(folder):
        if not Path(folder).is_dir():
            return []
        found = Path(folder).iterdir()
        return sorted(path.name for path in found if folders or path.is_file())
    system, inside = _system(folder)
    try:
        entries = system.ls(inside, detail=True)
    except (FileNotFoundError, NotImplementedError):
        return []
    return sorted(
        entry["name"].rpartition("/")[2]
        for entry in entries
        if folders or entry["type"] == "file"
    )


def size_of(path: AnyPath) -> int:
    """Return how many bytes the file at `path` has, or the files in the folder there."""
    if not is_remote(path):
        path = Path(path)
        files = path.rglob("*") if path.is_dir() else [path]
        return sum(file.stat().st_size for file in files)
    system, inside = _system(path)
    return int(system.size(inside) or 0)


def modified_at(path: AnyPath) -> datetime:
    """Return when the file at `path` was written, in UTC."""
    if not is_remote(path):
        return datetime.fromtimestamp(Path(path).stat().st_mtime, timezone.utc)
    system, inside = _system(path)
    try:
        when: datetime = system.modified(inside)
    except NotImplementedError:  # HTTP
        return datetime.fromtimestamp(0, timezone.utc)
    return when if when.tzinfo else when.replace(tzinfo=timezone.utc)


def remove(path: AnyPath) -> None:
    """Remove the file at `path`; one that is gone already is no error."""
    if not is_remote(path):
        Path(path).unlink(missing_ok=True)
        return
    system, inside = _system(path)
    with suppress(FileNotFoundError):
        system.rm_file(inside)


@contextmanager
def local_copy(path: AnyPath) -> Iterator[Path]:
    """Yield a local file with the content of `path`: itself, or one that is fetched.

    Raises:
        CheckpointNotFoundError: It cannot be fetched.
    """
    if not is_remote(path):
        yield Path(path)
        return
    system, inside = _system(path)
    with tempfile.TemporaryDirectory() as folder:
        fetched = Path(folder) / split(path)[1]
        try:
            system.get_file(inside, str(fetched))
        # Each file system behind fsspec has errors of its own.
        except Exception as error:
            raise CheckpointNotFoundError(
                f"`{os.fspath(path)}` cannot be read ({type(error).__name__}: {error}). "
                "Check the address and that you may read it."
            ) from error
        yield fetched


@contextmanager
def writing(path: AnyPath) -> Iterator[BinaryIO]:
    """Yield a stream whose content becomes the file at `path`, all of it or nothing.

    Raises:
        CheckpointWriteError: The disk is full, there is no permission, or the like; what
            was at `path` is intact.
    """
    try:
        if is_remote(path):
            with tempfile.NamedTemporaryFile(delete=False) as stream:
                staged = Path(stream.name)
                try:
                    yield cast(BinaryIO, stream)
                    stream.close()
                    _send(staged, path)
                finally:
                    stream.close()
                    staged.unlink()
        else:
            with atomic_write(Path(path)) as stream:
                yield stream
    except CheckpointWriteError:
        raise
    except (OSError, RuntimeError) as error:
        refused = system_error_behind(error)
        if refused is None:
            raise
        raise CheckpointWriteError(path, refused) from error


def _send(staged: Path, path: AnyPath) -> None:
    """Put a local file at `path`, by a name of its own: uploads may break off."""
    system, inside = _system(path)
    temporary = f"{inside}.{secrets.token_hex(4)}.tmp"
    try:
        system.makedirs(inside.rpartition("/")[0], exist_ok=True)
        system.put_file(str(staged), temporary)
        system.mv(temporary, inside)
    except Exception as error:
        with suppress(Exception):
            system.rm_file(temporary)
        raise CheckpointWriteError(path, error) from error


def _system(path: AnyPath) -> tuple[Any, str]:
    """Return the file system behind a scheme, and what `path` is called in it."""
    import fsspec

    scheme = os.fspath(path).partition("://")[0]
    try:
        system, inside = fsspec.core.url_to_fs(os.fspath(path))
    except ImportError as error:
        raise MissingDependencyError(
            f"`{os.fspath(path)}`: {error}. Install what reads and writes `{scheme}://`, "
            "or use a local path."
        ) from error
    except ValueError as error:
        raise MisconfigurationException(
            f"`{os.fspath(path)}`: nothing here knows `{scheme}://` ({error}). Use a local "
            "path, or a scheme that fsspec knows, such as s3, gs, abfs, hf, sftp or https."
        ) from error
    system.invalidate_cache()  # other processes write there as well
    return system, str(inside)
