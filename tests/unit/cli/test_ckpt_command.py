from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import STATE, environment, put_files, run_process

# Stands for the runtime's program: it takes seconds to import torch.
PROGRAM = """\
import json, os, sys
if "--fail" in sys.argv:
    sys.exit(5)
print(json.dumps({"pid": os.getpid(), "argv": sys.argv[1:], "cwd": os.getcwd()}))
"""


@pytest.fixture
def project(work: Path) -> Path:
    return put_files(
        work / "project",
        {
            ".lightgen/state.json": json.dumps(STATE),
            "src/mymodel/__init__.py": "",
            "runs/1/checkpoints/a.ckpt": "",
        },
    )


@pytest.fixture
def program(work: Path) -> dict[str, str]:
    """The environment in which the command becomes the stand-in."""
    put_files(
        work / "stand-in/lightgen_runtime/ckpt",
        {"../__init__.py": "", "__init__.py": "", "__main__.py": PROGRAM},
    )
    present = environment()["PYTHONPATH"]
    return environment(
        PYTHONPATH=os.pathsep.join([str(work / "stand-in"), present]),
        PYTHONSAFEPATH="1",
    )


def report(
    done: subprocess.CompletedProcess[str],
) -> tuple[list[str], Path]:
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return found["argv"], Path(found["cwd"])


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_command_becomes_the_program(
    command: str, work: Path, program: dict[str, str]
) -> None:
    done = run_process("ckpt", command, "x.ckpt", "--json", cwd=work, env=program)
    assert report(done) == ([command, "x.ckpt", "--json"], work)
    line = f"python -m lightgen_runtime.ckpt {command} x.ckpt --json"
    assert done.stderr.strip() == line


def test_two_files_are_handed_on(work: Path, program: dict[str, str]) -> None:
    done = run_process("ckpt", "diff", "a.ckpt", "b c.ckpt", cwd=work, env=program)
    assert report(done)[0] == ["diff", "a.ckpt", "b c.ckpt"]
    assert "'b c.ckpt'" in done.stderr


def test_options_of_a_conversion_are_handed_on(
    work: Path, program: dict[str, str]
) -> None:
    options = ["--to", "weights", "--output", "y.ckpt"]
    done = run_process("ckpt", "convert", "x.ckpt", *options, cwd=work, env=program)
    expected = [
        "convert",
        "x.ckpt",
        "--to",
        "weights",
        "--output",
        str(work / "y.ckpt"),
    ]
    assert report(done)[0] == expected


def test_run_is_meant_from_everywhere_in_the_project(
    project: Path, program: dict[str, str]
) -> None:
    inside = project / "src/mymodel"
    put_files(inside, {"x.ckpt": ""})
    done = run_process("ckpt", "diff", "best", "x.ckpt", cwd=inside, env=program)
    assert report(done) == (["diff", "best", str(inside / "x.ckpt")], project)
    assert done.stderr.startswith(f"cd {project} && python -m ")


def test_run_outside_of_a_project_is_refused(
    work: Path, program: dict[str, str]
) -> None:
    done = run_process("ckpt", "inspect", "last", cwd=work, env=program)
    assert done.returncode == 2
    assert "not inside a project" in done.stderr


def test_exit_code_is_the_programs_own(work: Path, program: dict[str, str]) -> None:
    script = Path(program["PYTHONPATH"].split(os.pathsep)[0])
    main = script / "lightgen_runtime/ckpt/__main__.py"
    main.write_text("raise SystemExit(6)")
    done = run_process("ckpt", "diff", "a", "b", cwd=work, env=program)
    assert done.returncode == 6


def test_real_program_looks_at_a_real_file(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    kept = root / "tests/golden/checkpoints/0.1.0/manual.ckpt"
    paths = [str(root), str(root / "runtime")]
    done = subprocess.run(
        [sys.executable, "-m", "lightgen", "ckpt", "inspect", str(kept)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "checkpoint of lightgen, format 1" in done.stdout
    assert "net.2" in done.stdout
