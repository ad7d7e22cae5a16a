"""What a person or a program sees: data on stdout, talk on stderr.

The only module that imports rich, and only once something coloured is really written to
a terminal, so that `--help` and pipes never pay for it.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath


def spell_out_what_cannot_be_encoded() -> None:
    """Let both streams write a character that they cannot encode as its number."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def put(text: str) -> None:
    """Write a result to stdout, followed by a newline."""
    print(text)


def put_json(value: Mapping[str, object]) -> None:
    """Write one JSON object on one line of stdout."""
    print(json.dumps(value, sort_keys=True))


def say(text: str, *, style: str = "") -> None:
    """Write talk to stderr.

    Args:
        text: The message, possibly of several lines.
        style: A rich style such as `bold red`; ignored unless stderr is a terminal that
            takes colour and `NO_COLOR` is unset.
    """
    if style and _takes_colour():
        from rich.console import Console

        console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        console.print(text, style=style, soft_wrap=True)
    else:
        print(text, file=sys.stderr)


def tree_lines(paths: Iterable[str]) -> list[str]:
    """Draw paths as an indented tree, one line a file or folder."""
    lines: list[str] = []
    shown: set[PurePosixPath] = set()
    for path in sorted(map(PurePosixPath, paths)):
        for folder in reversed(path.parents[:-1]):
            if folder not in shown:
                shown.add(folder)
                lines.append(f"{'  ' * (len(folder.parts) - 1)}{folder.name}/")
        lines.append(f"{'  ' * (len(path.parts) - 1)}{path.name}")
    return lines


def fail(message: str) -> None:
    """Write an error to stderr, its first line marked."""
    first, _, rest = message.partition("\n")
    say(f"error: {first}", style="bold red")
    if rest:
        say(rest)


def is_interactive() -> bool:
    """Tell whether a person can be asked: both ends are a terminal."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def _takes_colour() -> bool:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stderr.isatty() and not plain
