"""`lightgen train`, `validate`, `test` and `predict`: become the project's own program.

The program replaces this process, so that signals, exit codes and output are its own.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from lightgen import console
from lightgen.errors import ProjectNotFoundError, ProjectStateError, UsageError
from lightgen.project.root import find_root
from lightgen.project.state import STATE_PATH, read_state

# What the program does not take for a path.
_CHECKPOINT_NAMES = frozenset({"best", "last"})
_DEFAULT_CONFIG = "config.yaml"

PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Click settings of a command that hands on every option it does not know."""

Config = Annotated[
    list[str] | None,
    typer.Option(
        "--config",
        metavar="PATH",
        help="Configuration; may be repeated. Default: the project's config.yaml.",
    ),
]
Checkpoint = Annotated[
    str | None,
    typer.Option("--ckpt", metavar="best|last|PATH", help="Checkpoint to start from."),
]
PrintConfig = Annotated[
    bool,
    typer.Option("--print-config", help="Print the resolved configuration and stop."),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="End stdout with one JSON object on a line.")
]


VERBS = {
    "train": ("fit", "Train the project you are in, then validate it."),
    "validate": ("validate", "Measure a checkpoint on the validation data."),
    "test": ("test", "Measure a checkpoint on the test data."),
    "predict": ("predict", "Write a checkpoint's predictions to a file."),
}
"""The program's subcommand and the help text, by verb."""

EPILOG = (
    "Any other option goes to the project's program, as in --model.lr 1e-3 or "
    "--trainer.max_epochs 5. It lists them after: -- --help"
)


def verb_command(subcommand: str) -> Callable[..., None]:
    """Build the command that becomes the program with `subcommand`."""

    def run(
        context: typer.Context,
        config: Config = None,
        ckpt: Checkpoint = None,
        print_config: PrintConfig = False,
        as_json: AsJson = False,
    ) -> None:
        _become(subcommand, context.args, config, ckpt, print_config, as_json)

    return run


def _become(
    subcommand: str,
    overrides: list[str],
    config: list[str] | None,
    ckpt: str | None,
    print_config: bool,
    as_json: bool,
) -> NoReturn:
    here = _working_folder()
    root = find_root(here)
    package = _runnable_package(root)
    arguments = [subcommand]
    for path in _config_paths(root, here, config):
        arguments += ["--config", path]
    if ckpt is not None:
        arguments += ["--ckpt_path", _checkpoint(root, here, ckpt)]
    if print_config:
        arguments.append("--print_config")
    if as_json:
        arguments.append("--json")
    arguments += overrides

    console.say(_bare_command(root, here, package, arguments), style="dim")
    sys.stdout.flush()
    sys.stderr.flush()
    os.chdir(root)
    os.execve(
        sys.executable,
        [sys.executable, "-m", package, *arguments],
        os.environ | {"PYTHONPATH": _search_path(str(root / "src"))},
    )


def _working_folder() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError as error:
        raise ProjectNotFoundError(
            "the folder you are in no longer exists",
            accepted="a folder inside a project",
            todo='cd "$PWD", if it was made again',
        ) from error


def _runnable_package(root: Path) -> str:
    package = read_state(root).package
    entry = root / "src" / package / "__main__.py"
    if not entry.is_file():
        raise ProjectStateError(
            f"the project has no program `{package}` to run",
            where=str(entry),
            accepted=f"the package named in `{STATE_PATH}`, with a `__main__.py`",
            todo="restore the file, or correct `package` there after a rename",
        )
    return package


def _config_paths(root: Path, here: Path, given: list[str] | None) -> list[str]:
    """Resolve configuration files against the user's folder; they must exist."""
    paths = [here / Path(path).expanduser() for path in given or ()]
    for path in paths or [root / _DEFAULT_CONFIG]:
        if not path.is_file():
            raise UsageError(
                f"there is no configuration file `{path.name}`",
                where=str(path),
                accepted="a YAML file with settings of trainer, model and data",
                todo="name one with --config PATH, relative to the folder you are in",
            )
    return [_relative(root, path) for path in paths] or [_DEFAULT_CONFIG]


def _checkpoint(root: Path, here: Path, given: str) -> str:
    if given in _CHECKPOINT_NAMES:
        return given
    path = _relative(root, here / Path(given).expanduser())
    return f"./{path}" if path in _CHECKPOINT_NAMES else path


def _relative(root: Path, path: Path) -> str:
    """Spell `path` as seen from `root`, in full when it lies outside."""
    absolute = Path(os.path.normpath(path))
    return str(absolute.relative_to(root) if root in absolute.parents else absolute)


def _search_path(source: str) -> str:
    present = os.environ.get("PYTHONPATH")
    return f"{source}{os.pathsep}{present}" if present else source


def _bare_command(root: Path, here: Path, package: str, arguments: list[str]) -> str:
    """Spell the command as it can be pasted into the shell this one was typed in."""
    found = shutil.which("python")
    is_ours = found is not None and Path(found) == Path(sys.executable)
    python = "python" if is_ours else sys.executable
    change = f"cd {shlex.quote(str(root))} && " if here != root else ""
    extended = (
        f'"src{os.pathsep}$PYTHONPATH"' if os.environ.get("PYTHONPATH") else "src"
    )
    command = shlex.join([python, "-m", package, *arguments])
    return f"{change}PYTHONPATH={extended} {command}"
