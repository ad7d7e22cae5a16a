"""`lightgen adopt`: takes in a `configure_optimizers` that was written by hand."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from lightgen import console
from lightgen.blocks.adoption import Adoption, adopt
from lightgen.blocks.optimizer import with_block
from lightgen.errors import ProjectNotFoundError
from lightgen.optim.spec import to_record
from lightgen.project.history import typed_command, write_command
from lightgen.project.journal import read_file
from lightgen.project.paths import absolute_path, working_folder
from lightgen.project.root import find_folder, find_root
from lightgen.project.state import (
    STATE_PATH,
    ProjectState,
    plain_state,
    read_state,
    state_json,
)
from lightgen.project.tree import TreeFile

Module = Annotated[
    str,
    typer.Argument(
        metavar="PATH[:CLASS]", help="The file, and the class if it has several."
    ),
]
Force = Annotated[
    bool, typer.Option("--force", help="Replace a record that says something else.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what was read; write nothing.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def adopt_module(
    module: Module,
    force: Force = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Read a hand-written `configure_optimizers`, so that `regen` works there.

    The file is not changed. What options cannot say is named, line by line.
    """
    here = working_folder()
    root, state_file, state = _project(here)
    path, _, class_name = module.partition(":")
    target = absolute_path(path, where="argument MODULE")
    if not target.exists() and (root / path).exists():
        target = root / path
    found = adopt(root, state, target, class_name, force=force)
    writes = not dry_run and not found.known
    if writes:
        content = state_json(with_block(state, found.block))
        seen = {STATE_PATH: state_file}
        write_command(root, typed_command(), {STATE_PATH: TreeFile(content)}, seen)
    if as_json:
        console.put_json(_as_json(root, found, writes))
    else:
        _show(found, writes, alone=not set(state.blocks) - {found.block.key})


def _project(here: Path) -> tuple[Path, bytes | None, ProjectState]:
    """Return the project, the file with its records and what they say.

    Where lightgen made none, there is no file and the records are empty.
    """
    try:
        root = find_root(here)
    except ProjectNotFoundError:
        return find_folder(here), None, plain_state()
    return root, read_file(root, STATE_PATH), read_state(root)


def _as_json(root: Path, found: Adoption, written: bool) -> dict[str, object]:
    return {
        "command": "adopt",
        "root": str(root),
        "file": found.block.file,
        "class": found.block.class_name,
        "spec": to_record(found.block.spec),
        "options": found.options,
        "notes": [{"line": note.line, "text": note.text} for note in found.notes],
        "written": [STATE_PATH] if written else [],
    }


def _show(found: Adoption, written: bool, *, alone: bool) -> None:
    block = found.block
    where = f"{block.file}, {block.class_name}.configure_optimizers"
    if written:
        console.put(f"Adopted {where}. The same as options:\n")
    elif found.known:
        console.put(f"Nothing to do: {where} is recorded already. As options:\n")
    else:
        console.put(f"Nothing written. {where} as options:\n")
    words = found.options
    for name, value in zip(words[::2], words[1::2], strict=True):
        console.put(f"  {name} {shlex.quote(value)}")
    for note in found.notes:
        console.put(f"\nnote: {block.file}:{note.line}: {note.text}")
    if written:
        module = "" if alone else f" --module {block.file}:{block.class_name}"
        change = "--schedule cosine" if block.spec.labelled else "--lr 1e-3"
        console.put(f"\nChange any of them: lightgen regen optimizer{module} {change}")
        console.put("lightgen undo takes the record back; the file was not changed.")
