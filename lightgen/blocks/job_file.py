"""A job file of the project: its record, and its next version.

The file is one of the project's generated files, with its pristine text in
`.lightgen/base`; its options are remembered like those of a block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lightgen.cluster.job import Job, from_record, with_options
from lightgen.errors import (
    BlockConflictError,
    ConflictError,
    JobOptionError,
    ProjectStateError,
)
from lightgen.project.journal import is_behind_a_link, read_file
from lightgen.project.line_merge import LineConflict, merge_lines
from lightgen.project.state import STATE_PATH, ProjectState, base_path, state_json
from lightgen.project.tree import FileTree, TreeFile, sha256

Status = Literal["new", "pristine", "edited"]


@dataclass(frozen=True)
class JobFile:
    """The next version of a job file.

    Attributes:
        job: Its options.
        tree: The files to write: it, its pristine text and the project's records.
        before: Its text now; "" if there is none.
        after: Its text then.
        status: What became of it since it was generated.
        changes: Whether anything is to be written.
    """

    job: Job
    tree: FileTree
    before: str
    after: str
    status: Status
    changes: bool


def plan(
    root: Path, state: ProjectState, kind: type[Job], given: Mapping[str, Any]
) -> JobFile:
    """Work out the next version of a job file; writes nothing.

    Args:
        root: The project.
        state: Its records.
        kind: Which file.
        given: The options by name; None keeps what was said before.

    Raises:
        JobOptionError: An option cannot work.
        BlockConflictError: You and the options changed the same lines.
        ConflictError: A file that lightgen did not write is there.
        ProjectStateError: The records, or the pristine text, cannot be used.
    """
    former = _former(state, kind)
    job = with_options(former or kind(), given)
    fresh = job.text(state.package)
    _refuse_what_is_in_the_way(root, kind.file)
    mine = _text(root, kind.file)
    status: Status = "new"
    after = fresh
    if mine is not None and mine.strip():  # an empty file has nothing to keep
        base = _base(root, state, kind) if former else None
        if base is None and mine != fresh:
            raise ConflictError(
                f"`{kind.file}` is there, and lightgen did not write it",
                where=str(root / kind.file),
                accepted="no file of that name, or one that this command wrote",
                todo="move it away, then take over from it what you want to keep",
            )
        if base is not None:
            status = "pristine" if mine == base else "edited"
            after = _merged(kind.file, base, mine, fresh)
    tree = _tree(root, state, job, fresh, after)
    changes = any(read_file(root, path) != each.content for path, each in tree.items())
    return JobFile(job, tree, mine or "", after, status, changes)


def _former(state: ProjectState, kind: type[Job]) -> Job | None:
    record = state.blocks.get(_key(kind))
    if record is None:
        return None
    try:
        return from_record(kind, record["options"])
    except (KeyError, TypeError, AttributeError, JobOptionError) as error:
        said = error.given if isinstance(error, JobOptionError) else repr(error)
        raise ProjectStateError(
            f"the options of `{kind.file}` cannot be read: {said}",
            where=STATE_PATH,
            accepted="the file as lightgen wrote it",
            todo=f"restore `{STATE_PATH}` from version control",
        ) from error


def _key(kind: type[Job]) -> str:
    return f"cluster {kind.command}"


def _base(root: Path, state: ProjectState, kind: type[Job]) -> str:
    path = base_path(kind.file)
    content = read_file(root, path)
    if content is None or sha256(content) != state.files.get(kind.file):
        raise ProjectStateError(
            f"the pristine text of `{kind.file}` is not the one that the records describe",
            where=str(root / path),
            accepted="the file as lightgen wrote it",
            todo=f"restore `{path}` from version control, or move {kind.file} away to "
            "have it written anew",
        )
    return content.decode()


def _text(root: Path, path: str) -> str | None:
    content = read_file(root, path)
    if content is None:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ConflictError(
            f"`{path}` is no text: {error}",
            where=str(root / path),
            accepted="a file in UTF-8",
        ) from error


def _refuse_what_is_in_the_way(root: Path, path: str) -> None:
    if (root / path).is_symlink() or is_behind_a_link(root, path):
        raise ConflictError(
            f"`{path}` is a link, or in a folder that is one",
            where=str((root / path).resolve()),
            accepted="a plain file; a link is neither replaced nor followed",
            todo="put the file in the link's place",
        )
    for there, is_wrong in (
        (root / path, (root / path).is_dir()),
        ((root / path).parent, (root / path).parent.is_file()),
    ):
        if is_wrong:
            raise ConflictError(
                f"`{there.relative_to(root).as_posix()}` is in the way",
                where=str(there),
                accepted=f"a place for the file `{path}`",
                todo="move it away, then try again",
            )


def _merged(path: str, base: str, mine: str, fresh: str) -> str:
    """Bring what is new into the user's text, whose line ends stay."""
    has_crlf = "\r\n" in mine
    text, conflicts = merge_lines(base, mine.replace("\r\n", "\n"), fresh)
    if conflicts:
        raise _conflict_error(path, conflicts)
    return text.replace("\n", "\r\n") if has_crlf else text


def _conflict_error(path: str, conflicts: list[LineConflict]) -> BlockConflictError:
    lines = []
    for conflict in conflicts:
        lines.append(f"line {conflict.line}")
        lines.append(f"    you:       {_shown(conflict.ours)}")
        lines.append(f"    generator: {_shown(conflict.theirs)}")
    return BlockConflictError(
        "you and the options changed the same lines:\n  " + "\n  ".join(lines),
        where=f"{path}:{conflicts[0].line}",
        accepted="one of the two in both places",
        todo="give the option the value that you wrote, or make the line what the "
        "generator writes; nothing was written",
    )


def _shown(text: str) -> str:
    return "\n               ".join(text.splitlines()) or "(nothing: taken out)"


def _tree(
    root: Path, state: ProjectState, job: Job, fresh: str, after: str
) -> FileTree:
    content = fresh.encode()
    record = {"block": "cluster", "file": job.file, "options": job.record()}
    state = replace(
        state,
        files={**state.files, job.file: sha256(content)},
        blocks={**state.blocks, _key(type(job)): record},
    )
    return {
        job.file: TreeFile(after.encode()),
        base_path(job.file): TreeFile(content),
        STATE_PATH: TreeFile(state_json(state)),
    }
