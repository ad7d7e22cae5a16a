"""The commands of `python -m lightgen_runtime.ckpt`."""

from __future__ import annotations

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from lightgen_runtime.ckpt import convert, difference, inspect, verify
from lightgen_runtime.ckpt.contents import read
from lightgen_runtime.utilities.exceptions import (
    CheckpointNotFoundError,
    CheckpointWriteError,
    LightgenRuntimeError,
    MisconfigurationException,
    OutputExistsError,
)
from lightgen_runtime.utilities.nearest import nearest

FAILED = 1
USAGE = 2
IN_THE_WAY = 3
UNSOUND = 5
DIFFERENT = 6

_KINDS = ("best", "last")
_RUNS = "a file; in a project also best, last or the number of a run"


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        found, text, status = _COMMANDS[options.command](options)
    except (LightgenRuntimeError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return _status_of(error)
    if options.json:
        text = json.dumps({"command": f"ckpt {options.command}", **found})
    sys.stdout.write(f"{text}\n")
    return status


def _status_of(error: Exception) -> int:
    if isinstance(error, OutputExistsError):
        return IN_THE_WAY
    ours = isinstance(error, LightgenRuntimeError)
    return USAGE if ours and not isinstance(error, CheckpointWriteError) else FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lightgen_runtime.ckpt",
        description="Look at checkpoints and convert them. No code in a file ever runs.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    helps = {
        "inspect": "show what a file holds",
        "verify": "tell whether a file is whole, and what it is good for; exit 5 if not",
        "diff": "compare two files; exit 6 if they differ",
        "convert": "write a file again in another form",
    }
    for name, text in helps.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("path", metavar="PATH", help=_RUNS)
        if name == "diff":
            command.add_argument("other", metavar="OTHER", help=_RUNS)
        if name == "convert":
            command.add_argument("--to", required=True, metavar="|".join(convert.FORMS))
            command.add_argument("--output", type=Path, metavar="PATH")
            command.add_argument("--force", action="store_true")
        command.add_argument("--json", action="store_true", help="print a JSON object")
    return parser


def _found(given: str) -> Path:
    if not (given in _KINDS or given.isdigit()):
        path = Path(given)
        near = nearest(path.name, _KINDS)
        if near is not None and not path.exists():
            raise CheckpointNotFoundError(
                f"No checkpoint at `{given}`; did you mean `{near}`?"
            )
        return path
    # Late: it brings the whole command line of a project with it.
    found: Path = import_module("lightgen_runtime.cli.runs").find_checkpoint(given)
    return found


def _inspect(options: argparse.Namespace) -> tuple[dict[str, Any], str, int]:
    found = inspect.describe(read(_found(options.path)))
    return found, inspect.rendered(found), 0


def _verify(options: argparse.Namespace) -> tuple[dict[str, Any], str, int]:
    found = verify.verify(_found(options.path))
    return found, verify.rendered(found), 0 if found["sound"] else UNSOUND


def _diff(options: argparse.Namespace) -> tuple[dict[str, Any], str, int]:
    one, other = read(_found(options.path)), read(_found(options.other))
    found = difference.compare(one, other)
    return found, difference.rendered(found), 0 if found["same"] else DIFFERENT


def _convert(options: argparse.Namespace) -> tuple[dict[str, Any], str, int]:
    if options.to not in convert.FORMS:
        accepted = " or ".join(map(repr, convert.FORMS))
        near = nearest(options.to, convert.FORMS)
        hint = f"; did you mean `{near}`?" if near else ""
        raise MisconfigurationException(
            f"`--to`: got {options.to!r}, expected {accepted}{hint}"
        )
    contents = read(_found(options.path))
    written = convert.convert(contents, options.to, options.output, force=options.force)
    paths = list(map(str, written))
    return (
        {"path": str(contents.path), "to": options.to, "written": paths},
        ("\n".join(f"wrote {path}" for path in paths)),
        0,
    )


_COMMANDS = {
    "inspect": _inspect,
    "verify": _verify,
    "diff": _diff,
    "convert": _convert,
}


if __name__ == "__main__":
    sys.exit(main())
