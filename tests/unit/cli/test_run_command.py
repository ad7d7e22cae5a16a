from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import STATE, environment, put_files, run_process

PROGRAM = """\
import json, os, sys
import mymodel
if "--fail" in sys.argv:
    sys.exit(42)
if "--die" in sys.argv:
    os.kill(os.getpid(), 15)
print(json.dumps({
    "pid": os.getpid(),
    "argv": sys.argv[1:],
    "cwd": os.getcwd(),
    "path": os.environ["PYTHONPATH"],
    "package": mymodel.__file__,
}))
"""


@pytest.fixture
def project(work: Path) -> Path:
    """A project whose program reports how it was started."""
    return put_files(
        work / "my project",
        {
            ".lightgen/state.json": json.dumps(STATE),
            "config.yaml": "model: {}\n",
            "src/mymodel/__init__.py": "",
            "src/mymodel/__main__.py": PROGRAM,
        },
    )


def report_of(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert isinstance(report, dict)
    return report


@pytest.mark.parametrize(
    ("verb", "subcommand"),
    [
        ("train", "fit"),
        ("validate", "validate"),
        ("test", "test"),
        ("predict", "predict"),
    ],
)
def test_verb_becomes_the_program(verb: str, subcommand: str, project: Path) -> None:
    report = report_of(run_process(verb, cwd=project))
    assert report["argv"] == [subcommand, "--config", "config.yaml"]
    assert report["cwd"] == str(project)
    assert report["package"] == str(project / "src/mymodel/__init__.py")


def test_program_replaces_the_command(project: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "lightgen", "train"],
        cwd=project,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    out, _ = process.communicate(timeout=60)
    assert json.loads(out)["pid"] == process.pid


def test_exit_code_and_signal_are_the_programs_own(project: Path) -> None:
    assert run_process("train", "--fail", cwd=project).returncode == 42
    died = run_process("train", "--die", cwd=project)
    assert died.returncode == -signal.SIGTERM


def test_project_is_found_from_a_folder_inside(project: Path) -> None:
    report = report_of(run_process("train", cwd=project / "src/mymodel"))
    assert report["cwd"] == str(project)


def test_unknown_options_go_through_in_order(project: Path) -> None:
    overrides = ["--trainer.max_epochs", "3", "--model.lr=1e-3", "--data.x", "-1"]
    report = report_of(run_process("train", *overrides, cwd=project))
    assert report["argv"] == ["fit", "--config", "config.yaml", *overrides]


def test_own_options_are_translated(project: Path) -> None:
    options = ["--ckpt", "best", "--print-config", "--json", "--model.lr", "1"]
    report = report_of(run_process("test", *options, cwd=project))
    assert report["argv"] == [
        *("test", "--config", "config.yaml", "--ckpt_path", "best"),
        *("--print_config", "--json", "--model.lr", "1"),
    ]


def test_resuming_is_the_programs_business(project: Path) -> None:
    done = run_process("train", "--resume", "auto", "--model.lr", "1", cwd=project)
    assert report_of(done)["argv"] == [
        *("fit", "--config", "config.yaml", "--resume", "auto", "--model.lr", "1"),
    ]
    assert "--resume" not in run_process("test", "--help", cwd=project).stdout


def test_help_of_the_program_is_reachable(project: Path) -> None:
    report = report_of(run_process("train", "--", "--help", cwd=project))
    assert report["argv"] == ["fit", "--config", "config.yaml", "--help"]


def test_paths_are_relative_to_where_the_user_is(project: Path, work: Path) -> None:
    put_files(project, {"src/small.yaml": "", "src/last": ""})
    put_files(work, {"other.yaml": ""})
    report = report_of(
        run_process(
            *("test", "--config", "small.yaml", "--config", "../../other.yaml"),
            *("--ckpt", "runs/a.ckpt"),
            cwd=project / "src",
        )
    )
    assert report["argv"] == [
        *("test", "--config", "src/small.yaml", "--config", str(work / "other.yaml")),
        *("--ckpt_path", "src/runs/a.ckpt"),
    ]


def test_file_called_last_is_not_taken_for_the_last_checkpoint(project: Path) -> None:
    report = report_of(run_process("test", "--ckpt", "../last", cwd=project / "src"))
    assert report["argv"][-1] == "./last"


def test_search_path_is_extended(project: Path) -> None:
    present = environment()["PYTHONPATH"]
    report = report_of(run_process("train", cwd=project))
    assert report["path"] == f"src:{present}"


def test_project_below_a_folder_with_a_colon_is_run(project: Path, work: Path) -> None:
    below = work / "a:b/project"
    below.parent.mkdir()
    project.rename(below)
    report = report_of(run_process("train", cwd=below / "src"))
    assert report["package"] == str(below / "src/mymodel/__init__.py")


def test_relative_search_path_keeps_its_meaning(project: Path, work: Path) -> None:
    present = environment()["PYTHONPATH"]
    put_files(project, {"src/more/extra.py": ""})
    env = environment(PYTHONPATH=f"{present}:more")
    done = run_process("train", cwd=project / "src", env=env)
    extended = f"src:{present}:{project}/src/more"
    assert report_of(done)["path"] == extended
    assert f"PYTHONPATH={shlex.quote(extended)} " in done.stderr


@pytest.mark.parametrize("inside", [".", "src/mymodel"])
def test_run_number_means_the_run_from_everywhere(project: Path, inside: str) -> None:
    report = report_of(run_process("test", "--ckpt", "1", cwd=project / inside))
    assert report["argv"][-2:] == ["--ckpt_path", "1"]
    report = report_of(run_process("test", "--ckpt", "./1", cwd=project))
    assert report["argv"][-1] == "./1"


@pytest.mark.parametrize("inside", [".", "src/mymodel"])
def test_printed_command_does_the_same_when_pasted(project: Path, inside: str) -> None:
    arguments = ["train", "--model.name", "it's; $HOME", "--trainer.max_epochs", "1"]
    started = run_process(*arguments, cwd=project / inside)
    command = started.stderr.strip()
    assert command.startswith("cd ") == (inside != ".")
    pasted = subprocess.run(
        ["sh", "-c", command],
        cwd=project / inside,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    for key in ("argv", "cwd", "package"):
        assert json.loads(pasted.stdout)[key] == report_of(started)[key]


@pytest.mark.parametrize("name", ["python", "python3"])
def test_printed_command_is_short_in_the_usual_case(project: Path, name: str) -> None:
    # The package is installed, so no PYTHONPATH is set, and its environment is active;
    # pip has `lightgen` start one of its names for Python.
    source = environment()["PYTHONPATH"]
    folder = Path(sys.executable).parent
    env = environment(PATH=str(folder))
    del env["PYTHONPATH"]
    start = f"import sys; sys.path.insert(0, {source!r}); sys.argv[1:] = ['train']; "
    done = subprocess.run(
        [str(folder / name), "-c", f"{start}from lightgen.cli import main; main()"],
        cwd=project,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    command = "PYTHONPATH=src python -m mymodel fit --config config.yaml"
    assert done.stderr.strip() == command
    assert report_of(done)["path"] == "src"


def test_outside_a_project_is_refused(work: Path) -> None:
    done = run_process("train", cwd=work)
    assert done.returncode == 2
    assert "not inside a project" in done.stderr
    assert f"where:    {work}" in done.stderr
    assert "lightgen new" in done.stderr
    assert list(work.iterdir()) == []


def test_missing_config_is_refused_before_the_program_starts(project: Path) -> None:
    (project / "config.yaml").unlink()
    done = run_process("train", cwd=project)
    assert done.returncode == 2
    assert "no configuration file `config.yaml`" in done.stderr
    assert done.stdout == ""


def test_missing_config_is_named_as_the_user_meant_it(project: Path) -> None:
    done = run_process("train", "--config", "none.yaml", cwd=project / "src")
    assert done.returncode == 2
    assert f"where:    {project / 'src/none.yaml'}" in done.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "records cannot be read"),
        ("[]", "records cannot be read"),
        ("{}", "records cannot be read"),
        ('{"schema": 1}', "records cannot be read"),
        ('{"schema": 99}', "layout 99"),
    ],
)
def test_damaged_records_are_refused(project: Path, text: str, says: str) -> None:
    (project / ".lightgen/state.json").write_text(text)
    done = run_process("train", cwd=project)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_project_without_a_program_is_refused(project: Path) -> None:
    (project / "src/mymodel/__main__.py").unlink()
    done = run_process("train", cwd=project)
    assert done.returncode == 2
    assert "no program `mymodel`" in done.stderr


@pytest.mark.parametrize("option", ["--config", "--ckpt"])
@pytest.mark.parametrize("path", ["~nosuch/x", "x" * 300])
def test_impossible_path_is_refused(project: Path, option: str, path: str) -> None:
    done = run_process("test", option, path, cwd=project)
    assert done.returncode == 2
    assert f"`{path}` cannot be used as a path" in done.stderr
    assert f"where:    option {option}" in done.stderr


@pytest.mark.parametrize(
    "command", ["train", "new mymodel", "new mymodel --output-dir /"]
)
def test_folder_that_is_gone_is_refused(command: str, work: Path) -> None:
    gone = work / "gone"
    gone.mkdir()
    safe = "-P " if sys.version_info >= (3, 11) else ""
    python = f"{shlex.quote(sys.executable)} {safe}-m lightgen"
    done = subprocess.run(
        ["sh", "-c", f"rmdir {gone} && exec {python} {command}"],
        cwd=gone,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no longer exists" in done.stderr


def test_export_becomes_the_program(project: Path, work: Path) -> None:
    options = ["--format", "onnx", "--output", "../m.onnx", "--ckpt", "last"]
    report = report_of(run_process("export", *options, "--x", "1", cwd=project / "src"))
    assert report["argv"] == [
        *("export", "--config", "config.yaml", "--ckpt_path", "last"),
        *("--format", "onnx", "--output", str(project / "src/../m.onnx"), "--x", "1"),
    ]
    report = report_of(run_process("export", cwd=project))
    assert report["argv"][-2:] == ["--format", "safetensors"]
    report = report_of(run_process("export", "--format", "nn", "--force", cwd=project))
    assert report["argv"][-3:] == ["--format", "nn", "--force"]


def test_program_finds_what_was_typed(project: Path, work: Path) -> None:
    main = project / "src/mymodel/__main__.py"
    main.write_text("import os\nprint(os.environ['LIGHTGEN_COMMAND'])\n")
    done = run_process("train", "--ckpt", "a b", cwd=project)
    assert done.stdout == "lightgen train --ckpt 'a b'\n"
