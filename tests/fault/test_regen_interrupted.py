"""`regen` and `undo`, killed or refused by the system at every single step."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from striking import FAULTS, run_driver

import lightgen
from lightgen.cli import app
from lightgen.project.root import find_root

if sys.platform == "win32":
    pytest.skip("needs fork and SIGKILL", allow_module_level=True)

MODULE = "src/mymodel/module.py"
REGEN = ["regen", "optimizer", "--optimizer", "sgd", "--no-verify"]
COMMANDS = {"regen": REGEN, "undo": ["undo"]}

DRIVER = """
import os, shutil, sys
from pathlib import Path

from lightgen.cli import app
from striking import strike_everywhere
from typer.main import get_command

program = get_command(app)
work, kind, project, *command = Path(sys.argv[1]), *sys.argv[2:]
sys.argv[1:] = command


def prepare(folder):
    shutil.copytree(project, folder / "project")
    return folder / "project"


def act(root):
    os.chdir(root)
    program.main(list(command), standalone_mode=False)


if kind == "kill":
    sys.stderr = open(os.devnull, "w")
print(strike_everywhere(work, kind, prepare, act))
"""

Snapshot = dict[str, tuple[int, bytes]]
Case = tuple[list[str], Path, Snapshot, Snapshot]


def lightgen_in(folder: Path, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lightgen", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(lightgen.__file__).parents[1])},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def snapshot(root: Path) -> Snapshot:
    """Every name below a folder, with its mode and content."""
    return {
        path.relative_to(root).as_posix(): (
            path.stat().st_mode,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in root.rglob("*")
    }


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small project before and after each command."""
    folder = tmp_path_factory.mktemp("stages")
    lightgen_in(folder, "new", "mymodel", "--defaults", "--no-git")
    root = folder / "mymodel"
    for name in ("tests", "README.md"):
        shutil.rmtree(root / name) if (root / name).is_dir() else (root / name).unlink()
    shutil.rmtree(root / ".lightgen/base/tests")
    (root / MODULE).chmod(0o750)
    found = {"new": folder / "new"}
    shutil.copytree(root, found["new"])
    for name, command in COMMANDS.items():
        lightgen_in(root, *command)
        found[name] = folder / name
        shutil.copytree(root, found[name])
    return found


@pytest.fixture(params=COMMANDS)
def case(request: pytest.FixtureRequest, stages: dict[str, Path]) -> Case:
    """A command, the project to run it in, and what that holds before and after it."""
    names = list(stages)
    before = stages[names[names.index(request.param) - 1]]
    after = snapshot(stages[request.param])
    return COMMANDS[request.param], before, snapshot(before), after


@pytest.fixture
def next_command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a command in this process."""

    def run(root: Path, command: list[str]) -> None:
        monkeypatch.chdir(root)
        monkeypatch.setattr(sys, "argv", ["lightgen", *command])
        app(command, standalone_mode=False)

    return run


def test_kill_is_undone_or_final_and_the_command_can_be_given_again(
    case: Case, tmp_path: Path, next_command: Callable[..., None]
) -> None:
    command, project, before, after = case
    work = tmp_path / "work"
    steps = run_driver(DRIVER, work, "kill", str(project), *command)
    assert steps > 15
    seen = []
    for step in range(1, steps + 1):
        root = work / str(step) / "project"
        find_root(root)
        found = snapshot(root)
        assert found in (before, after), f"step {step}"
        seen.append(found == after)
        if step % 5 == 1 and not seen[-1]:
            next_command(root, command)
            assert snapshot(root) == after, f"step {step}"
    assert seen == sorted(seen), "once written, it stays"
    assert True in seen
    assert False in seen


@pytest.mark.parametrize("fault", FAULTS)
def test_refusal_leaves_nothing_or_everything(
    fault: str, case: Case, tmp_path: Path
) -> None:
    command, project, before, after = case
    work = tmp_path / "work"
    steps = run_driver(DRIVER, work, fault, str(project), *command)
    refused = 0
    for step in range(1, steps + 1):
        outcome, _ = json.loads((work / f"outcome-{step}").read_text())
        found = snapshot(work / str(step) / "project")
        if outcome == "done":
            leftover = {n for n in found if n.startswith(".lightgen-journal")}
            kept = {name: file for name, file in found.items() if name not in leftover}
            assert kept == after, f"step {step}"
        else:
            refused += 1
            assert outcome == "WriteError", f"step {step}"
            assert found == before, f"step {step}"
    assert refused > 5
