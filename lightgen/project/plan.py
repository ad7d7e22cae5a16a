"""What a write would do, decided before anything is written."""

from __future__ import annotations

import difflib
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from lightgen.errors import ConflictError, listing
from lightgen.project.tree import FileTree

Action = Literal["create", "replace", "keep"]
_SHOWN_CONFLICTS = 10


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to one file; `keep` means that it already has the new content."""

    path: str
    action: Action


def is_free(root: Path) -> bool:
    """Tell whether `root` is missing or an empty folder.

    Raises:
        ConflictError: If `root` is something else than a folder.
    """
    if not root.exists() and not root.is_symlink():
        return True
    if root.is_symlink() or not root.is_dir():
        raise ConflictError(
            f"`{root.name}` exists and is not a plain folder",
            where=str(root),
            accepted="a missing or empty folder",
            todo="choose another NAME or --output-dir",
        )
    return not any(root.iterdir())


def occupied(root: Path) -> ConflictError:
    """Build the error for a target that already holds files."""
    names = sorted(path.name for path in root.iterdir())
    more = ", ..." if len(names) > _SHOWN_CONFLICTS else ""
    return ConflictError(
        f"the folder `{root.name}` exists and is not empty: "
        f"{listing(names[:_SHOWN_CONFLICTS])}{more}",
        where=str(root),
        accepted="a missing or empty folder",
        todo="choose another NAME, or see what --force would replace: "
        "add --force --dry-run",
    )


def plan_changes(root: Path, tree: FileTree) -> list[Change]:
    """Compare `tree` with what is at `root`, in the order of paths.

    Raises:
        ConflictError: If a folder or special file is where a file should go, or a file
            or link where a folder should be; neither is ever replaced.
    """
    _check_places(root, tree)
    changes = []
    for path in sorted(tree):
        current = root / path
        action: Action = "replace"
        if not current.exists() and not current.is_symlink():
            action = "create"
        elif not current.is_symlink() and current.read_bytes() == tree[path].content:
            action = "keep"
        changes.append(Change(path, action))
    return changes


def contents_diff(root: Path, tree: FileTree, changes: Iterable[Change]) -> str:
    """Render the changes as one unified diff against what is at `root`."""
    parts = []
    for change in changes:
        if change.action == "keep":
            continue
        new = tree[change.path].content
        old = (root / change.path).read_bytes() if change.action == "replace" else b""
        before = f"a/{change.path}" if change.action == "replace" else "/dev/null"
        parts.append(_file_diff(old, new, before, f"b/{change.path}"))
    return "".join(parts)


def _file_diff(old: bytes, new: bytes, before: str, after: str) -> str:
    try:
        old_lines = old.decode().splitlines(keepends=True)
        new_lines = new.decode().splitlines(keepends=True)
    except UnicodeDecodeError:
        return f"Binary files {before} and {after} differ\n"
    if not new_lines and before == "/dev/null":
        return f"--- {before}\n+++ {after}\n"
    lines = difflib.unified_diff(old_lines, new_lines, before, after)
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
        for line in lines
    )


def _check_places(root: Path, paths: Iterable[str]) -> None:
    blocked = set()
    for path in paths:
        for parent in list(PurePosixPath(path).parents)[:-1]:
            place = root / parent
            # A link would lead out of the project.
            if place.is_symlink() or (place.exists() and not place.is_dir()):
                blocked.add(f"{parent}/")
        if _is_special(root / path):
            blocked.add(path)
    if blocked:
        raise ConflictError(
            f"something of another kind is in the way: {listing(sorted(blocked))}",
            where=str(root),
            accepted="files may be replaced; folders, links to folders and devices "
            "are never removed",
            todo="move it away, then try again",
        )


def _is_special(path: Path) -> bool:
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISLNK(mode))
