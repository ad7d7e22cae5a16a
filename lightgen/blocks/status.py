"""What a user has done to each generated file and block of a project."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lightgen.blocks.optimizer import (
    METHOD,
    OptimizerBlock,
    decoded,
    fingerprint,
    read_blocks,
)
from lightgen.errors import BlockNotFoundError, LightgenError
from lightgen.project.journal import OLD_SUFFIX, read_file, unfinished
from lightgen.project.state import ProjectState, base_path
from lightgen.project.tree import sha256
from lightgen.regen.block import Place, status_of
from lightgen.regen.locate import locate, parse_file
from lightgen.regen.merge import Version
from lightgen.regen.surroundings import same_around, same_meaning_around

Status = Literal["pristine", "adopted", "formatted", "edited", "conflicting", "deleted"]
STATUSES: tuple[Status, ...] = (
    "conflicting",
    "deleted",
    "edited",
    "formatted",
    "adopted",
    "pristine",
)
NEW_SUFFIX = ".lightgen-new"
"""What a file with the generator's version, beside the user's, is called."""


@dataclass(frozen=True)
class Found:
    """One file, or one block of it.

    Attributes:
        path: The file.
        status: What became of it.
        block: Class and method of a block; "" for a file.
        reason: Why it conflicts; "" if it does not.
    """

    path: str
    status: Status
    block: str = ""
    reason: str = ""


def file_statuses(root: Path, state: ProjectState) -> list[Found]:
    """Compare every file of a project with what lightgen wrote, blocks aside.

    Raises:
        ProjectStateError: The record of a block cannot be read.
    """
    blocks = read_blocks(state)
    pending = set(unfinished(root))
    found = []
    for path in sorted(state.files):
        reason = _conflict(root, path, pending)
        places = [_place(block) for block in blocks if block.file == path]
        if reason:
            found.append(Found(path, "conflicting", reason=reason))
        else:
            found.append(_compared(root, path, state.files[path], places))
    return found


def block_statuses(root: Path, state: ProjectState) -> list[Found]:
    """Compare every block of a project with what lightgen generated.

    Raises:
        ProjectStateError: The record of a block cannot be read.
    """
    return [
        _block_status(root, block, own_file=block.file not in state.files)
        for block in read_blocks(state)
    ]


def leftovers(root: Path, path: str) -> list[str]:
    """Return the files beside a file that wait for the user to merge them."""
    names = [f"{path}{suffix}" for suffix in (NEW_SUFFIX, OLD_SUFFIX)]
    return [name for name in names if (root / name).is_file()]


def _conflict(root: Path, path: str, pending: set[str]) -> str:
    """Say what keeps a file from being anybody's version; "" if nothing does."""
    place = root / path
    if path in pending:
        return "a write to it was interrupted, and is not undone yet"
    if place.exists() and not place.is_file():
        return "it is no plain file"
    return _unmerged(root, path)


def _unmerged(root: Path, path: str) -> str:
    beside = leftovers(root, path)
    return f"`{beside[0]}` waits to be merged and removed" if beside else ""


def _compared(root: Path, path: str, pristine: str, places: Sequence[Place]) -> Found:
    content = read_file(root, path)
    if content is None:
        return Found(path, "deleted")
    if sha256(content) == pristine:
        return Found(path, "pristine")
    base = read_file(root, base_path(path))
    if base is None or sha256(base) != pristine:
        reason = f"`{base_path(path)}` is not the text that the records describe"
        return Found(path, "conflicting", reason=reason)
    return Found(path, _difference(path, content, base, places))


def _difference(
    path: str, content: bytes, base: bytes, places: Sequence[Place]
) -> Status:
    try:
        mine, pristine = decoded(content, path)[0], base.decode()
        if places and same_around(mine, pristine, places):
            return "pristine"
        if path.endswith(".py"):
            same = same_meaning_around(mine, pristine, places)
        else:
            same = _stripped(mine) == _stripped(pristine)
    except (BlockNotFoundError, UnicodeDecodeError):
        return "edited"
    return "formatted" if same else "edited"


def _stripped(text: str) -> list[str]:
    """Return the lines of a text without what an editor removes on saving."""
    return [line.rstrip() for line in text.rstrip().splitlines()]


def _block_status(root: Path, block: OptimizerBlock, *, own_file: bool) -> Found:
    """Compare a block; one in a file of the user's own speaks for the file, too."""
    name = f"{block.class_name}.{METHOD}"
    content = read_file(root, block.file)
    if content is None:
        return Found(block.file, "deleted", name)
    try:
        source = parse_file(decoded(content, block.file)[0], block.file)
        method = locate(source, block.file, block.class_name, METHOD).method
    except LightgenError as error:
        reason = f"{error.given} ({error.where})"
        return Found(block.file, "conflicting", name, reason)
    if method is None:
        return Found(block.file, "deleted", name)
    reason = _unmerged(root, block.file) if own_file else ""
    if reason:
        return Found(block.file, "conflicting", name, reason)
    version = Version(source, method)
    if block.adopted and fingerprint(version) == block.adopted:
        return Found(block.file, "adopted", name)
    return Found(block.file, status_of(version, block.base), name)


def _place(block: OptimizerBlock) -> Place:
    return Place(block.file, block.class_name, METHOD)
