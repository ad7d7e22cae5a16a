"""`lightgen ckpt`: become the runtime's own program for checkpoint files.

Nothing here reads a checkpoint: that takes torch, which this package never imports.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from lightgen import console
from lightgen.commands.run import is_checkpoint_name
from lightgen.project.paths import absolute_path, working_folder
from lightgen.project.root import find_root

_PROGRAM = "lightgen_runtime.ckpt"

_METAVAR = "PATH|best|last|N"
_GIVEN = "A file; in a project also best, last or a run's number"
Given = Annotated[
    str,
    typer.Argument(metavar=_METAVAR, help=f"{_GIVEN}."),
]
First = Annotated[str, typer.Argument(metavar="FIRST", help=f"{_GIVEN}: {_METAVAR}.")]
Second = Annotated[
    str, typer.Argument(metavar="SECOND", help="What to compare it with; likewise.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
To = Annotated[
    str,
    typer.Option(
        metavar="current|weights|state-dict|safetensors",
        help="What this version writes, weights alone as a checkpoint, as torch's own "
        "state_dict, or as safetensors with a JSON file of the rest.",
    ),
]
Output = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="Where to. Default: beside the file."),
]
Force = Annotated[
    bool, typer.Option("--force", help="Replace a file; never a run's checkpoint.")
]


def inspect(path: Given, as_json: AsJson = False) -> None:
    """Show what a checkpoint holds."""
    _become("inspect", [path], as_json)


def verify(path: Given, as_json: AsJson = False) -> None:
    """Tell whether a checkpoint is whole; exit 5 if it is not."""
    _become("verify", [path], as_json)


def diff(path: First, other: Second, as_json: AsJson = False) -> None:
    """Compare two checkpoints; exit 6 if they differ."""
    _become("diff", [path, other], as_json)


def convert(
    path: Given,
    to: To,
    output: Output = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Write a checkpoint again in another form; Lightning's files too."""
    options = ["--to", to]
    if output is not None:
        options += ["--output", str(absolute_path(output, where="option --output"))]
    if force:
        options.append("--force")
    _become("convert", [path], as_json, options)


def _become(
    command: str, given: list[str], as_json: bool, options: list[str] | None = None
) -> NoReturn:
    here = working_folder()
    names = [name for name in given if is_checkpoint_name(name)]
    folder = find_root(here) if names else here
    arguments = [command]
    for path in given:
        absolute = path in names or folder == here
        arguments.append(
            path if absolute else str(absolute_path(path, where="argument PATH"))
        )
    arguments += options or []
    if as_json:
        arguments.append("--json")
    change = f"cd {shlex.quote(str(folder))} && " if folder != here else ""
    command_line = shlex.join(["python", "-m", _PROGRAM, *arguments])
    console.say(f"{change}{command_line}", style="dim")
    sys.stdout.flush()
    sys.stderr.flush()
    os.chdir(folder)
    os.execve(
        sys.executable,
        [sys.executable, "-m", _PROGRAM, *arguments],
        os.environ | _search_path(here),
    )


def _search_path(here: Path) -> dict[str, str]:
    """Return PYTHONPATH, its entries seen from where the user is."""
    present = os.environ.get("PYTHONPATH")
    if not present:
        return {}
    entries = [str(here / entry) for entry in present.split(os.pathsep)]
    return {"PYTHONPATH": os.pathsep.join(entries)}
