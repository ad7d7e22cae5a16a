"""`lightgen train`, `validate`, `test` and `predict`: become the project's own program.

The program replaces this process, so that signals, exit codes and output are its own.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from lightgen import console
from lightgen.commands.launching import (
    Devices,
    Launch,
    NodeRank,
    Nodes,
    Rendezvous,
    Restarts,
    read_launch,
)
from lightgen.errors import ProjectStateError, UsageError
from lightgen.project.paths import absolute_path, working_folder
from lightgen.project.root import find_root
from lightgen.project.state import STATE_PATH, read_state

_DEFAULT_CONFIG = "config.yaml"

TYPED_COMMAND = "LIGHTGEN_COMMAND"
"""The environment variable in which the program finds how it was called, to say so."""

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
    typer.Option(
        "--ckpt",
        metavar="best|last|N|PATH",
        help="Checkpoint to use; N is the number of a run.",
    ),
]
Resume = Annotated[
    str | None,
    typer.Option(
        "--resume",
        metavar="auto|N|weights",
        help="Go on with the newest run that is not over, or with run N, in its folder; "
        "or begin a new run with the weights of --ckpt or of the newest run.",
    ),
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
        program = Program.of_project(config)
        own = _own_arguments(program, ckpt, print_config, as_json)
        _become(program, [subcommand, *own, *context.args], Launch())

    def evaluate(
        context: typer.Context,
        config: Config = None,
        ckpt: Checkpoint = None,
        devices: Devices = None,
        print_config: PrintConfig = False,
        as_json: AsJson = False,
    ) -> None:
        program = Program.of_project(config)
        own = _own_arguments(program, ckpt, print_config, as_json)
        launch = read_launch(devices, context.args, program.configs)
        own += launch.trainer_options()
        launch = Launch() if print_config else launch  # once is enough
        _become(program, [subcommand, *own, *context.args], launch)

    def train(
        context: typer.Context,
        config: Config = None,
        ckpt: Checkpoint = None,
        resume: Resume = None,
        devices: Devices = None,
        nodes: Nodes = None,
        node_rank: NodeRank = None,
        rendezvous: Rendezvous = None,
        restarts: Restarts = None,
        print_config: PrintConfig = False,
        as_json: AsJson = False,
    ) -> None:
        program = Program.of_project(config)
        own = _own_arguments(program, ckpt, print_config, as_json)
        own += [] if resume is None else ["--resume", resume]
        meeting = (nodes, node_rank, rendezvous, restarts)
        launch = read_launch(devices, context.args, program.configs, *meeting)
        own += launch.trainer_options()
        launch = Launch() if print_config else launch  # once is enough
        _become(program, [subcommand, *own, *context.args], launch)

    if subcommand == "fit":
        return train
    return run if subcommand == "export" else evaluate


@dataclass(frozen=True)
class Program:
    """The program of the project around the current folder.

    Attributes:
        here: The folder that the user is in.
        root: The project's.
        package: What is run.
        configs: The configuration files, all of which exist.
    """

    here: Path
    root: Path
    package: str
    configs: list[Path]

    @classmethod
    def of_project(cls, config: list[str] | None) -> Program:
        """Find the project, and the configuration that is meant."""
        here = working_folder()
        root = find_root(here)
        return cls(here, root, _runnable_package(root), _config_paths(root, config))


def _own_arguments(
    program: Program, ckpt: str | None, print_config: bool, as_json: bool
) -> list[str]:
    """Spell the options that lightgen knows as the program does."""
    arguments = []
    for path in program.configs:
        arguments += ["--config", _relative(program.root, path)]
    if ckpt is not None:
        arguments += ["--ckpt_path", _checkpoint(program.root, ckpt)]
    if print_config:
        arguments.append("--print_config")
    if as_json:
        arguments.append("--json")
    return arguments


def _become(program: Program, arguments: list[str], launch: Launch) -> NoReturn:
    search_path = _search_path(program.root, program.here)
    words = [*launch.command(program.package), *arguments]
    added = launch.environment()
    command = _bare_command(program, search_path, added, words)
    console.say(command, style="dim")
    sys.stdout.flush()
    sys.stderr.flush()
    os.chdir(program.root)
    added |= {"PYTHONPATH": search_path, TYPED_COMMAND: _typed()}
    os.execve(sys.executable, [sys.executable, *words], os.environ | added)


def _typed() -> str:
    return shlex.join(["lightgen", *sys.argv[1:]])


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


def _config_paths(root: Path, given: list[str] | None) -> list[Path]:
    """Return the configuration files, which must exist."""
    paths = [absolute_path(path, where="option --config") for path in given or ()]
    paths = paths or [root / _DEFAULT_CONFIG]
    for path in paths:
        if not path.is_file():
            raise UsageError(
                f"there is no configuration file `{path.name}`",
                where=str(path),
                accepted="a YAML file with settings of trainer, model and data",
                todo="name one with --config PATH, relative to the folder you are in",
            )
    return paths


def _checkpoint(root: Path, given: str) -> str:
    if is_checkpoint_name(given):
        return given
    path = _relative(root, absolute_path(given, where="option --ckpt"))
    return f"./{path}" if is_checkpoint_name(path) else path


def is_checkpoint_name(text: str) -> bool:
    """Tell what the program takes for a checkpoint's or a run's name, not for a path."""
    return text in {"best", "last"} or text.isdigit()


def _relative(root: Path, path: Path) -> str:
    """Spell `path` as seen from `root`, in full when it lies outside."""
    absolute = Path(os.path.normpath(path))
    return str(absolute.relative_to(root) if root in absolute.parents else absolute)


def _search_path(root: Path, here: Path) -> str:
    """Put the project's `src` before the user's entries, which are relative to `here`.

    `src` itself stays relative to the root: a path with the separator in it, as in
    `/data/a:b`, could not be spelled.
    """
    present = os.environ.get("PYTHONPATH")
    entries = present.split(os.pathsep) if present else []
    if here != root:
        entries = [str(here / entry) for entry in entries]
    return os.pathsep.join(["src", *entries])


def _bare_command(
    program: Program, search_path: str, added: dict[str, str], words: list[str]
) -> str:
    """Spell the command as it can be pasted into the shell this one was typed in."""
    python = "python" if _is_on_path("python") else sys.executable
    moves = program.here != program.root
    change = f"cd {shlex.quote(str(program.root))} && " if moves else ""
    extended = shlex.quote(search_path)
    if search_path == f"src{os.pathsep}{os.environ.get('PYTHONPATH')}":
        extended = f'"src{os.pathsep}$PYTHONPATH"'
    settings = "".join(f"{name}={value} " for name, value in added.items())
    return f"{change}PYTHONPATH={extended} {settings}{shlex.join([python, *words])}"


def _is_on_path(name: str) -> bool:
    """Tell whether a name leads to this Python, which pip may start as `python3`.

    Python tells environments apart by the folder it was started from.
    """
    found, ours = shutil.which(name), Path(sys.executable)
    return (
        found is not None and Path(found).parent == ours.parent and ours.samefile(found)
    )
