"""Replaces files of an existing folder, all of them or none.

Inside the folder, `.lightgen-journal/` holds the new files, copies of the old ones and,
once both are safely on the disk, `undo.json`: the list of changes about to be made.
From then on the write can be undone; deleting that list is the one step that makes it
final.

- A failure undoes what was done so far.
- A kill leaves the journal; the next lightgen command in the folder undoes the write.
- A file that the user changed in between stays; the old text is put beside it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from lightgen import console
from lightgen.errors import (
    ConflictError,
    LightgenError,
    ProjectStateError,
    UntrustedProjectError,
    WriteError,
    listing,
)
from lightgen.project.tree import FileTree, sha256, stays_inside
from lightgen.project.write import (
    fill_folder,
    locked,
    refused,
    sync_file,
    sync_folder,
    write_folder,
)

JOURNAL_FOLDER = ".lightgen-journal"
_UNDO = "undo.json"
OLD_SUFFIX = ".before-lightgen"


def write_files(root: Path, tree: FileTree) -> None:
    """Write all files of `tree` below `root`, a folder or missing, or none.

    Raises:
        WriteError: If the operating system refuses; every file is as it was.
        ConflictError: If another process is writing to `root`.
    """
    # A rename onto a folder that is there, even an empty one, would take it from under
    # whoever stands in it.
    if root.exists():
        replace_files(root, tree)
    else:
        write_folder(root, tree)


def replace_files(
    root: Path,
    tree: FileTree,
    removed: Iterable[str] = (),
    seen: Mapping[str, bytes | None] | None = None,
) -> None:
    """Write all files of `tree` into the existing folder `root`, or none.

    Args:
        root: The folder.
        tree: What to write; other files are not touched.
        removed: Paths of files to take away in the same step. Folders that this leaves
            empty go with them.
        seen: Content of the files that the decision to write rests on, None for a file
            that was not there.

    Raises:
        WriteError: If the operating system refuses; every file is as it was.
        ConflictError: If another process is writing to `root`, or a file is no longer
            as it was seen.
    """
    recover(root)
    gone = [path for path in removed if os.path.lexists(root / path)]
    if not tree and not gone:
        return
    journal = root / JOURNAL_FOLDER
    try:
        journal.mkdir()
        with locked(journal):
            try:
                _check_unchanged(root, seen or {})
                _prepare(root, journal, tree, gone)
                for path in tree:
                    (root / path).parent.mkdir(parents=True, exist_ok=True)
                    (journal / "new" / path).replace(root / path)
                for path in gone:
                    (root / path).unlink()
                _sync_folders_of(root, [*tree, *gone])
                (journal / _UNDO).unlink()
            except BaseException:
                _undo(root, journal)
                raise
            shutil.rmtree(journal, ignore_errors=True)
            _remove_emptied(root, gone)
    except OSError as error:
        raise refused(error, root) from error


def read_file(root: Path, path: str) -> bytes | None:
    """Return a file's content, None if there is no such file."""
    file = root / path
    return file.read_bytes() if file.is_file() else None


def unfinished(root: Path) -> list[str]:
    """Return the files that an interrupted or running write would change."""
    try:
        return [change["path"] for change in _read_undo(root)["changes"]]
    except LightgenError:
        return []


def is_behind_a_link(root: Path, path: str) -> bool:
    """Tell whether a folder on the way from `root` to a path is a link."""
    folders = PurePosixPath(path).parents
    return any((root / folder).is_symlink() for folder in list(folders)[:-1])


def _check_unchanged(root: Path, seen: Mapping[str, bytes | None]) -> None:
    changed = [path for path, was in seen.items() if read_file(root, path) != was]
    if changed:
        raise ConflictError(
            f"{listing(sorted(changed))} changed while the command ran",
            where=str(root),
            accepted="files that stay as they are until the command ends",
            todo="nothing was written; try again",
        )


def _remove_emptied(root: Path, gone: Iterable[str]) -> None:
    """Remove the folders that hold nothing any more; whatever stays does no harm."""
    for path in gone:
        for folder in list(PurePosixPath(path).parents)[:-1]:
            with contextlib.suppress(OSError):
                (root / folder).rmdir()


def recover(root: Path) -> None:
    """Undo a write to `root` that a kill interrupted, if there is one.

    Raises:
        ConflictError: If that write is still running.
        ProjectStateError: If the journal is damaged.
        UntrustedProjectError: If somebody else made it.
        WriteError: If the operating system refuses.
    """
    journal = root / JOURNAL_FOLDER
    if not os.path.lexists(journal):
        return
    _check_journal(journal)
    with locked(journal):
        begun = (journal / _UNDO).exists()
        _undo(root, journal)
    if begun:
        console.say(f"note: undid an interrupted write to {root}")


def _check_journal(journal: Path) -> None:
    """Refuse a journal that would have this user move files for somebody else."""
    try:
        found = journal.lstat()
    except FileNotFoundError:  # the write that made it has just ended
        return
    foreign = os.name == "posix" and found.st_uid != os.getuid()
    if foreign or not stat.S_ISDIR(found.st_mode):
        fault = "belongs to another user" if foreign else "is not a plain folder"
        raise UntrustedProjectError(
            f"the journal of an interrupted write {fault}",
            where=str(journal),
            accepted="a folder that lightgen made for you",
            todo="look at it and remove it, or work in another folder",
        )


def _prepare(root: Path, journal: Path, tree: FileTree, gone: list[str]) -> None:
    """Put new files, old files and the undo list on the disk, in that order."""
    fill_folder(journal / "new", tree)
    changes = []
    for path, file in tree.items():
        current = root / path
        replaces = current.is_symlink() or current.exists()
        if replaces:
            backup = journal / "old" / path
            backup.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(current, backup, follow_symlinks=False)
            if not backup.is_symlink():
                shutil.copymode(current, journal / "new" / path)
                sync_file(backup)
        changes.append(
            {"path": path, "new": sha256(file.content), "replaces": replaces}
        )
    for path in gone:
        backup = journal / "old" / path
        backup.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / path, backup, follow_symlinks=False)
        changes.append({"path": path, "new": None, "replaces": True})
    undo = {"changes": changes, "folders": _missing_folders(root, tree)}
    draft = journal / f"{_UNDO}.draft"
    draft.write_text(json.dumps(undo), encoding="utf-8")
    sync_file(draft)
    draft.replace(journal / _UNDO)
    sync_folder(journal)


def _missing_folders(root: Path, paths: Iterable[str]) -> list[str]:
    """List the folders to be created, the deepest first."""
    parents = {parent for path in paths for parent in PurePosixPath(path).parents}
    missing = [str(parent) for parent in parents if not (root / parent).exists()]
    return sorted(missing, key=lambda folder: (-folder.count("/"), folder))


def _sync_folders_of(root: Path, paths: Iterable[str]) -> None:
    for folder in {(root / path).parent for path in paths}:
        sync_folder(folder)


def _undo(root: Path, journal: Path) -> None:
    """Take back the changes listed in the journal, then remove it.

    May be interrupted and called again: a restored file no longer has its new content.
    """
    try:
        undo = _read_undo(root)
        for change in reversed(undo["changes"]):
            _undo_change(root, journal, change)
        for folder in undo["folders"]:
            path = root / folder
            if path.is_symlink() or not path.is_dir() or any(path.iterdir()):
                continue
            path.rmdir()
        (journal / _UNDO).unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(
            f"an interrupted write could not be undone: {error.strerror or error}",
            where=str(error.filename or journal),
            accepted="a writable folder",
            todo="repair that and run any lightgen command here: it goes on undoing",
        ) from error
    shutil.rmtree(journal, ignore_errors=True)


def _undo_change(root: Path, journal: Path, change: dict[str, Any]) -> None:
    path, backup = root / change["path"], journal / "old" / change["path"]
    ours = _content_hash(path) == change["new"]
    if change["replaces"] and (backup.is_symlink() or backup.exists()):
        if ours or not (path.is_symlink() or path.exists()):
            backup.replace(path)
        elif _content_hash(path) != _content_hash(backup):
            kept = path.with_name(path.name + OLD_SUFFIX)
            backup.replace(kept)
            console.say(f"note: {path} changed since; the old text is in {kept.name}")
    elif ours and not change["replaces"]:
        path.unlink()


def _read_undo(root: Path) -> dict[str, Any]:
    """Read the undo list; an absent one means that nothing was changed yet."""
    path = root / JOURNAL_FOLDER / _UNDO
    if not path.exists():
        return {"changes": [], "folders": []}
    try:
        undo: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        names = [change["path"] for change in undo["changes"]] + undo["folders"]
        for name in names:
            if not stays_inside(name):
                raise ValueError(f"`{name}` leaves the project")
            for place in (name, f"{JOURNAL_FOLDER}/old/{name}"):
                if is_behind_a_link(root, place):
                    raise ValueError(f"a link leads `{name}` out of the project")
    except (ValueError, KeyError, TypeError) as error:
        raise ProjectStateError(
            f"the journal of an interrupted write cannot be read: {error}",
            where=str(path),
            accepted="the file as lightgen wrote it",
            todo=f"compare `{JOURNAL_FOLDER}/old` with the project, then delete it",
        ) from error
    return undo


def _content_hash(path: Path) -> str | None:
    if path.is_symlink():
        return f"link to {path.readlink()}"
    return sha256(path.read_bytes()) if path.is_file() else None
