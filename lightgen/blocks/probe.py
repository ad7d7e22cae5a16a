"""Asking a project's code, in a process of its own, what its optimizers would do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightgen.errors import UsageError, VerificationError
from lightgen.project.tree import FileTree

CONFIG = "config.yaml"
LIMIT_S = 600
"""How long a probe may take."""
_USAGE = 2
"""Exit code of a project's program for what it cannot be asked."""


@dataclass(frozen=True)
class Probed:
    """What a probe found; see `lightgen_runtime.cli.probe`."""

    optimizers: list[dict[str, Any]]
    unoptimized: list[str]
    shared: list[str]
    schedules: list[dict[str, Any]]
    total_steps: int | None
    steps_per_epoch: int | None
    curve: list[tuple[int, list[float]]]
    step: dict[str, float] | None


def can_probe(root: Path, package: str) -> bool:
    """Tell whether a project has a program and a configuration to be asked."""
    program = root / "src" / package / "__main__.py"
    return program.is_file() and (root / CONFIG).is_file()


def probe(
    root: Path,
    package: str,
    changes: FileTree | None = None,
    overrides: Sequence[str] = (),
    *,
    step: bool = False,
) -> Probed:
    """Run the project's program up to its optimizers; the project is not written to.

    Args:
        root: The project.
        package: Its import package.
        changes: Files to run with in place of those on the disk.
        overrides: Options of the program.
        step: Whether to train one batch, too.

    Raises:
        UsageError: The program refuses the options or the configuration.
        VerificationError: The code fails.
    """
    with _sources(root, changes or {}) as source:
        path = os.pathsep.join(
            filter(None, [str(source), os.environ.get("PYTHONPATH")])
        )
        command = [sys.executable, "-m", "lightgen_runtime.cli.probe", package]
        command += ["--step"] if step else []
        command += ["fit", "--config", CONFIG, *overrides]
        try:
            done = subprocess.run(
                command,
                cwd=root,
                env=os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise VerificationError(
                f"the project's code did not make its optimizers in {LIMIT_S} s",
                todo="--no-verify writes without running it",
            ) from error
    if done.returncode == _USAGE and not changes:
        raise UsageError(
            _said(done.stderr), where="the options of this command, or config.yaml"
        )
    if done.returncode:
        raise _failed(done.stderr, package, changed=bool(changes))
    try:
        return Probed(**json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, TypeError, ValueError) as error:
        raise VerificationError(
            "the project's program says nothing of its optimizers",
            where=f"src/{package}/__main__.py",
            accepted="a program that starts `lightgen_runtime.cli.ProjectCLI`",
        ) from error


def check_sound(probed: Probed, where: str) -> None:
    """Check that every trainable parameter is optimized, and by one group.

    Raises:
        VerificationError: One is not.
    """
    for names, fault in (
        (probed.unoptimized, "are in no optimizer, and would never be trained"),
        (probed.shared, "are in two groups"),
    ):
        if names:
            shown = ", ".join(f"`{name}`" for name in names[:8])
            more = f" and {len(names) - 8} more" if len(names) > 8 else ""
            raise VerificationError(
                f"{len(names)} trainable parameters {fault}: {shown}{more}",
                where=where,
                accepted="every trainable parameter in one group",
                todo="widen a selector, or freeze what is not to be trained: "
                "--freeze SELECTOR",
            )


@contextmanager
def _sources(root: Path, changes: FileTree) -> Iterator[Path]:
    """Give the folder that packages are found in, with the changes made."""
    source = root / "src"
    below = {path: file for path, file in changes.items() if path.startswith("src/")}
    if not below:
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="lightgen-probe-") as scratch:
        copied = Path(scratch) / "src"
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(source, copied, ignore=ignore)
        for path, file in below.items():
            (Path(scratch) / path).write_bytes(file.content)
        yield copied


def _failed(stderr: str, package: str, *, changed: bool) -> VerificationError:
    lines = stderr.splitlines()
    return VerificationError(
        f"the project's code fails{' with it' if changed else ''}: {_said(stderr)}",
        where=_place(lines, package),
        accepted="code that imports, builds its model and makes its optimizers",
        todo=(
            "correct it, or look at it first: --diff; --no-verify writes all the same"
            if changed
            else "correct it, then try again"
        ),
    )


def _said(stderr: str) -> str:
    """Return what a program said last: its own error if there is one."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    own = [line for line in lines if line.startswith("error: ")]
    return (own or lines or [""])[-1].removeprefix("error: ")


def _place(lines: list[str], package: str) -> str:
    """Return the last line of a traceback that is in the project."""
    marks = [line.strip() for line in lines if line.strip().startswith("File ")]
    inside = [mark for mark in marks if f"/src/{package}/" in mark]
    if not inside:
        return ""
    file, _, rest = inside[-1].removeprefix('File "').partition('", line ')
    return (
        f"src/{package}/{file.rpartition(f'/src/{package}/')[2]}:{rest.split(',')[0]}"
    )
