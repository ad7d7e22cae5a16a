"""What lightgen's commands wrote into a project, so that it can be taken back.

`.lightgen/history/` has one file a command, numbered, with every changed file before and
after it, and `position.json`: how many of them are in force. The record of a command is
written in the same step as its changes. The folder hides itself from git: what one
person can take back is nobody else's.
"""

from __future__ import annotations

import base64
import json
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightgen.errors import (
    ConflictError,
    ProjectStateError,
    UsageError,
    WriteError,
    listing,
)
from lightgen.project.journal import is_behind_a_link, read_file, replace_files
from lightgen.project.state import STATE_FOLDER
from lightgen.project.transplant import transplant
from lightgen.project.tree import FileTree, TreeFile, stays_inside

HISTORY_FOLDER = f"{STATE_FOLDER}/history"
_POSITION = f"{HISTORY_FOLDER}/position.json"
_IGNORED = f"{HISTORY_FOLDER}/.gitignore"
KEPT = 100
"""How many commands can be taken back."""

Contents = Mapping[str, bytes | None]
"""Content by path; None for a file that is not there."""


@dataclass(frozen=True)
class Entry:
    """One command.

    Attributes:
        number: Its place in the history, from 1.
        command: What was typed.
        before: The files it changed, before it.
        after: The same, after it.
    """

    number: int
    command: str
    before: Contents
    after: Contents


@dataclass(frozen=True)
class Reach:
    """How far the history goes.

    Attributes:
        undo: The commands that `undo` can take back, the newest first.
        redo: The commands that `redo` can do again, the next first.
    """

    undo: list[Entry]
    redo: list[Entry]


def typed_command() -> str:
    """Return what the user typed to start this process."""
    return shlex.join(["lightgen", *sys.argv[1:]])


def write_command(
    root: Path, command: str, tree: FileTree, seen: Contents | None = None
) -> None:
    """Write files into a project, and remember it as one command that can be undone.

    Args:
        root: The project.
        command: What the user typed.
        tree: The files; those that already are so are left alone.
        seen: Content of the files that `tree` was worked out from.

    Raises:
        WriteError: If the operating system refuses; every file is as it was.
        ConflictError: If a file is a link, or changed since it was seen.
    """
    position_file = read_file(root, _POSITION)
    before = {path: read_file(root, path) for path in tree}
    changed = {path: f for path, f in tree.items() if before[path] != f.content}
    if not changed:
        return
    _refuse_links(root, changed)
    position, last = _read_position(root)
    number = position + 1
    record = {
        "command": command,
        "before": {path: _packed(before[path]) for path in changed},
        "after": {path: _packed(file.content) for path, file in changed.items()},
    }
    history: FileTree = {
        _path(number): _json(record),
        _POSITION: _place(number, number),
    }
    if read_file(root, _IGNORED) is None:
        history[_IGNORED] = TreeFile(b"*\n")
    # What was undone and is now replaced cannot be redone; what is too old is forgotten.
    forgotten = [_path(old) for old in (*range(number + 1, last + 1), number - KEPT)]
    basis = {**before, **(seen or {}), _POSITION: position_file}
    replace_files(root, changed | history, forgotten, basis)


def undo(root: Path) -> Entry:
    """Take the newest command in force back; edits made elsewhere since then stay.

    Returns:
        The command.

    Raises:
        UsageError: There is none.
        ConflictError: What the command wrote has changed since.
    """
    position, last = _read_position(root)
    if not position or not (root / _path(position)).is_file():
        raise UsageError(
            "there is nothing to undo",
            where=str(root),
            accepted=f"a command that wrote, of the last {KEPT}",
        )
    entry = _read_entry(root, position)
    _move(root, entry.after, entry.before, _place(position - 1, last), "undo")
    return entry


def redo(root: Path) -> Entry:
    """Do again what `undo` took back last; edits made elsewhere since then stay.

    Returns:
        The command.

    Raises:
        UsageError: There is none.
        ConflictError: What the command would write over has changed since.
    """
    position, last = _read_position(root)
    if position == last:
        raise UsageError("there is nothing to redo", where=str(root))
    entry = _read_entry(root, position + 1)
    _move(root, entry.before, entry.after, _place(position + 1, last), "redo")
    return entry


def read_history(root: Path) -> Reach:
    """Read every command that can be taken back or done again.

    Raises:
        ProjectStateError: A record is damaged.
    """
    position, last = _read_position(root)
    oldest = max(0, position - KEPT)
    known = [n for n in range(position, oldest, -1) if (root / _path(n)).is_file()]
    return Reach(
        [_read_entry(root, number) for number in known],
        [_read_entry(root, number) for number in range(position + 1, last + 1)],
    )


def _move(
    root: Path, now: Contents, then: Contents, position: TreeFile, verb: str
) -> None:
    """Bring files from one side of a command to the other."""
    position_file = read_file(root, _POSITION)
    _refuse_links(root, now)
    found = {path: read_file(root, path) for path in now}
    target = {path: _moved(path, found[path], now[path], then[path]) for path in now}
    edited = [path for path, content in target.items() if content is _EDITED]
    if edited:
        raise ConflictError(
            f"{listing(edited)} changed since, and {verb} would lose that",
            where=str(root),
            accepted="edits at least three lines away from what the command wrote",
            todo="take your change out for a moment (git stash), or copy it aside",
        )
    tree = {p: TreeFile(c) for p, c in target.items() if isinstance(c, bytes)}
    gone = [path for path, content in target.items() if content is None]
    basis = {**found, _POSITION: position_file}
    replace_files(root, tree | {_POSITION: position}, gone, basis)


class _Edited:
    """Stands for a file that the user changed where the command did."""


_EDITED = _Edited()


def _moved(
    path: str, found: bytes | None, now: bytes | None, then: bytes | None
) -> bytes | _Edited | None:
    if found in (now, then):  # untouched, or brought back by hand
        return then
    # Lines of our own records belong together.
    if None in (found, now, then) or path.startswith(f"{STATE_FOLDER}/"):
        return _EDITED
    assert found is not None
    assert now is not None
    assert then is not None
    merged = transplant(now, then, found)
    return _EDITED if merged is None else merged


def _refuse_links(root: Path, paths: Iterable[str]) -> None:
    """Refuse to cut a link, or to write to where one leads."""
    links = [p for p in paths if (root / p).is_symlink() or is_behind_a_link(root, p)]
    if links:
        leads = (root / links[0]).resolve()
        raise ConflictError(
            f"{listing(links)} is a link, or in a folder that is one",
            where=f"{root / links[0]} leads to {leads}",
            accepted="plain files; a link is neither replaced nor followed",
            todo="name the file that it leads to, if that is in the project too: "
            "--module PATH:CLASS; or put the file in the link's place",
        )


def _path(number: int) -> str:
    return f"{HISTORY_FOLDER}/{number:06}.json"


def _place(position: int, last: int) -> TreeFile:
    return _json({"position": position, "last": last})


def _json(value: dict[str, Any]) -> TreeFile:
    return TreeFile(f"{json.dumps(value, indent=1)}\n".encode())


def _read_position(root: Path) -> tuple[int, int]:
    path = root / _POSITION
    if not path.is_file():
        return 0, 0
    record = _read(path)
    try:
        position, last = int(record["position"]), int(record["last"])
        if not 0 <= position <= last <= position + KEPT:
            raise ValueError(f"position {position} of {last}")
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error
    return position, last


def _read_entry(root: Path, number: int) -> Entry:
    path = root / _path(number)
    record = _read(path)
    try:
        before, after = (
            {name: _unpacked(text) for name, text in record[side].items()}
            for side in ("before", "after")
        )
        if before.keys() != after.keys():
            raise ValueError("`before` and `after` name different files")
        for name in before:
            if not stays_inside(name):
                raise ValueError(f"`{name}` leads out of the project")
        return Entry(number, str(record["command"]), before, after)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, error) from error


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _damaged(path, error) from error
    except FileNotFoundError as error:
        raise _damaged(path, error) from error
    except OSError as error:
        raise WriteError(
            f"the history cannot be read: {error.strerror or error}",
            where=str(path),
            accepted="a file that you may read",
        ) from error


def _damaged(path: Path, error: Exception) -> ProjectStateError:
    return ProjectStateError(
        f"the history cannot be read: {error}",
        where=str(path),
        accepted="the file as lightgen wrote it",
        todo=f"remove `{HISTORY_FOLDER}` to begin a new history",
    )


def _packed(content: bytes | None) -> str | None:
    """Write bytes as text where they are text, so that a record can be read."""
    if content is None:
        return None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(content).decode("ascii")
    return f"text:{text}"


def _unpacked(text: str | None) -> bytes | None:
    if text is None:
        return None
    kind, _, rest = text.partition(":")
    return rest.encode() if kind == "text" else base64.b64decode(rest, validate=True)
