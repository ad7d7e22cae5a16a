"""Whether the records of a project are fit to work with."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lightgen import __version__
from lightgen.blocks.optimizer import read_blocks
from lightgen.blocks.status import block_statuses, leftovers
from lightgen.errors import LightgenError, listing
from lightgen.project.history import read_history
from lightgen.project.journal import read_file
from lightgen.project.state import ProjectState, base_path, read_state
from lightgen.project.tree import sha256

Level = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        level: `problem` if a command will fail or do the wrong thing for it.
        check: What was looked at.
        text: What was found.
        todo: What to do about it; "" if there is nothing to do.
    """

    level: Level
    check: str
    text: str
    todo: str = ""


def check_project(root: Path) -> Iterator[Finding]:
    """Check the records of the project at `root`."""
    if os.access(root, os.R_OK | os.W_OK | os.X_OK):
        yield Finding("ok", "project", str(root))
    else:
        text = f"{root} may not be written to"
        yield Finding("problem", "project", text, f"chmod u+rwx {root}")
    yield _check_history(root)
    try:
        state = read_state(root)
        read_blocks(state)
    except LightgenError as error:
        yield as_problem("records", error)
        return
    yield _check_generator(state)
    yield _check_base(root, state)
    yield from _check_blocks(root, state)
    yield from _check_leftovers(root, state)


def as_problem(check: str, error: LightgenError) -> Finding:
    """Report an error as a finding."""
    where = f" ({error.where})" if error.where else ""
    return Finding("problem", check, f"{error.given}{where}", error.todo)


def _check_history(root: Path) -> Finding:
    try:
        history = read_history(root)
    except LightgenError as error:
        return as_problem("history", error)
    text = f"{len(history.undo)} to undo, {len(history.redo)} to redo"
    return Finding("ok", "history", text)


def _check_generator(state: ProjectState) -> Finding:
    from packaging.version import InvalidVersion, Version

    text = f"{len(state.files)} files, by lightgen {state.generator}"
    try:
        newer = Version(state.generator) > Version(__version__)
    except InvalidVersion:
        return Finding("note", "records", f"{text}, which is no version", "see git log")
    if newer:
        todo = "pip install --upgrade lightgen"
        return Finding("note", "records", f"{text}, newer than this one", todo)
    return Finding("ok", "records", text)


def _check_base(root: Path, state: ProjectState) -> Finding:
    contents = {path: read_file(root, base_path(path)) for path in state.files}
    lost = [base_path(path) for path, content in contents.items() if content is None]
    other = [
        base_path(path)
        for path, content in contents.items()
        if content is not None and sha256(content) != state.files[path]
    ]
    if not lost and not other:
        return Finding("ok", "base", f"{len(contents)} pristine texts")
    faults = [
        f"{listing(paths)} {fault}"
        for paths, fault in ((lost, "missing"), (other, "changed"))
        if paths
    ]
    todo = f"from version control: git checkout -- {' '.join([*lost, *other])}"
    return Finding("problem", "base", "; ".join(faults), todo)


def _check_blocks(root: Path, state: ProjectState) -> Iterator[Finding]:
    for found in block_statuses(root, state):
        name = f"{found.path}, {found.block}"
        if found.status == "conflicting":
            todo = "correct that; what has another name now can be adopted: "
            todo += "lightgen adopt PATH:CLASS"
            yield Finding("problem", "block", f"{name}: {found.reason}", todo)
        elif found.status == "deleted":
            todo = "if that is a mistake: lightgen regen optimizer --restore"
            yield Finding("note", "block", f"{name}: deleted", todo)
        else:
            yield Finding("ok", "block", f"{name}: {found.status}")


def _check_leftovers(root: Path, state: ProjectState) -> Iterable[Finding]:
    paths = {*state.files, *(block.file for block in read_blocks(state))}
    for path in sorted(paths):
        for name in leftovers(root, path):
            todo = f"compare it with {path}, take over what you want, remove it"
            yield Finding("note", "leftover", f"{name} waits to be merged", todo)
