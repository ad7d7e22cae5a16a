"""A folder's files in memory, and fingerprints of them."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lightgen.errors import VerificationError


@dataclass(frozen=True, slots=True)
class TreeFile:
    """One regular file: its bytes, and whether it may be executed."""

    content: bytes
    executable: bool = False


FileTree = dict[str, TreeFile]
"""Files by path relative to the root, with forward slashes."""

_NOT_CONTENT = frozenset({".git", "__pycache__", ".DS_Store"})


def read_tree(folder: Path) -> FileTree:
    """Read every file below `folder`; empty folders are not recorded.

    Raises:
        VerificationError: On a symbolic link, a device, a pipe or a socket.
    """
    tree: FileTree = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder).as_posix()
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode):
            tree[relative] = TreeFile(path.read_bytes(), bool(mode & stat.S_IXUSR))
        elif not stat.S_ISDIR(mode):
            raise VerificationError(
                f"`{relative}` is neither a plain file nor a folder",
                where=str(folder),
                accepted="plain files and folders; no links, devices or pipes",
                todo="replace it by a copy of what it points to",
            )
    return tree


def stays_inside(path: str) -> bool:
    """Tell whether a path from a record leads to a place below the record's folder."""
    pure = PurePosixPath(path)
    return bool(pure.parts) and not pure.is_absolute() and ".." not in pure.parts


def sha256(content: bytes) -> str:
    """Return the SHA-256 of `content` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def folder_digest(folder: Path) -> str:
    """Fingerprint names, contents and links below `folder`, version control aside.

    Returns:
        `sha256:` and 64 hexadecimal digits; equal for equal folders on any machine.
    """
    digest = hashlib.sha256()
    for path in _content_of(folder):
        link = path.is_symlink()
        content = os.fsencode(path.readlink()) if link else path.read_bytes()
        name = path.relative_to(folder).as_posix()
        # The lengths keep "ab" + "c" apart from "a" + "bc".
        digest.update(f"{'link' if link else 'file'} {len(content)} {name}\0".encode())
        digest.update(content)
    return f"sha256:{digest.hexdigest()}"


def _content_of(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*"), key=lambda path: path.as_posix()):
        if _NOT_CONTENT.isdisjoint(path.relative_to(folder).parts) and (
            path.is_symlink() or path.is_file()
        ):
            yield path
