"""`lightgen undo` and `redo`: take back what a command wrote, without git."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from lightgen import console
from lightgen.project import history
from lightgen.project.paths import working_folder
from lightgen.project.root import find_root

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def undo(as_json: AsJson = False) -> None:
    """Take back the last command that wrote into the project."""
    _run("undo", history.undo, "Took back", as_json)


def redo(as_json: AsJson = False) -> None:
    """Do again what undo took back last."""
    _run("redo", history.redo, "Did again", as_json)


def _run(
    verb: str, step: Callable[[Path], history.Entry], done: str, as_json: bool
) -> None:
    root = find_root(working_folder())
    entry = step(root)
    if as_json:
        files = sorted(entry.after)
        console.put_json({"command": verb, "of": entry.command, "files": files})
        return
    console.put(f"{done}: {entry.command}")
    for path in sorted(entry.after):
        console.put(f"  {path}")
