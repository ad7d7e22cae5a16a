from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import STATE, Cli, environment, put_files, run_process

import lightgen
from lightgen import cli
from lightgen.errors import LightgenError, UsageError

# Typer itself loads pydantic (0.29), but only to read a command's own options.
HEAVY = {
    "black",
    "copier",
    "jinja2",
    "lightgen_runtime",
    "numpy",
    "prompt_toolkit",
    "rich",
    "torch",
    "yaml",
}


def loaded_by(*arguments: str, cwd: Path) -> set[str]:
    """Return the heavy packages that a command loads before it ends."""
    script = (
        "import atexit, json, os, sys\n"
        "def report():\n"
        "    print('LOADED', json.dumps(sorted(sys.modules)), file=sys.stderr)\n"
        "atexit.register(report)\n"
        "def execve(*_):\n"
        "    sys.exit(0)\n"
        "os.execve = execve\n"
        "sys.argv[0] = 'lightgen'\n"
        "from lightgen.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    line = next(x for x in done.stderr.splitlines() if x.startswith("LOADED "))
    modules = json.loads(line.removeprefix("LOADED "))
    return {name.partition(".")[0] for name in modules} & (HEAVY | {"pydantic"})


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["new", "--help"], ["train", "--help"]]
)
def test_help_loads_nothing_heavy(arguments: list[str], work: Path) -> None:
    loaded = loaded_by(*arguments, cwd=work)
    assert not loaded & HEAVY
    assert len(arguments) > 1 or not loaded


def test_train_loads_nothing_heavy(work: Path) -> None:
    put_files(
        work,
        {
            ".lightgen/state.json": json.dumps(STATE),
            "config.yaml": "",
            "src/mymodel/__main__.py": "",
        },
    )
    assert not loaded_by("train", cwd=work) & HEAVY


def test_templates_list_loads_yaml_alone(work: Path) -> None:
    assert loaded_by("templates", "list", cwd=work) & HEAVY == {"yaml"}


def test_new_never_loads_torch(work: Path) -> None:
    loaded = loaded_by("new", "mymodel", "--defaults", "--no-git", cwd=work)
    assert not loaded & {"torch", "lightgen_runtime", "rich"}


def test_version_is_that_of_the_distribution(run_cli: Cli) -> None:
    result = run_cli("--version")
    assert (result.code, result.out) == (0, f"lightgen {lightgen.__version__}\n")
    pyproject = Path(__file__).resolve().parents[3] / "pyproject.toml"
    declared = re.search(r'^version = "(.*)"$', pyproject.read_text(), re.MULTILINE)
    assert declared is not None
    assert declared.group(1) == lightgen.__version__


def test_no_arguments_show_the_help(work: Path) -> None:
    done = run_process(cwd=work)
    for verb in ("new", "train", "validate", "test", "predict", "templates"):
        assert f"\n  {verb} " in done.stdout + done.stderr


def test_every_error_class_has_an_exit_code() -> None:
    pending = list(LightgenError.__subclasses__())
    while pending:
        kind = pending.pop()
        pending += kind.__subclasses__()
        assert cli.exit_code(kind("given")) in {1, 2, 3, 4, 5, 6}


def test_message_has_only_the_parts_that_are_present() -> None:
    assert str(UsageError("given")) == "given"
    full = UsageError("given", where="here", accepted="that", todo="this")
    assert str(full) == ("given\n  where:    here\n  accepted: that\n  next:     this")


def test_defect_of_ours_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(**_: object) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(RuntimeError, match="ours"):
        cli.main()


def test_what_a_stream_cannot_encode_is_spelled_out(tmp_path: Path) -> None:
    folder = tmp_path / "mod\u00e8le"
    folder.mkdir()
    env = environment(PYTHONIOENCODING="ascii", LC_ALL="C.UTF-8")
    out = run_process("new", "x", "--no-git", "--dry-run", cwd=folder, env=env)
    assert out.returncode == 0, out.stderr
    assert "mod\\xe8le/x" in out.stdout
    err = run_process("train", cwd=folder, env=env)
    assert err.returncode == 2
    assert "mod\\xe8le" in err.stderr


def test_error_is_coloured_on_a_terminal_only(work: Path) -> None:
    if os.name != "posix":
        pytest.skip("needs a pseudo-terminal")
    plain = run_process("train", cwd=work)
    assert "\x1b" not in plain.stderr
    assert "\x1b[1;31m" in error_on_terminal(work, NO_COLOR="")
    assert "\x1b" not in error_on_terminal(work, NO_COLOR="1")


def error_on_terminal(work: Path, **extra: str) -> str:
    import pty

    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "lightgen", "train"],
        cwd=work,
        env=environment(TERM="xterm-256color", **extra),
        stdin=subprocess.DEVNULL,
        stderr=follower,
    )
    os.close(follower)
    written = b""
    # The terminal reports the end of its last writer as an error on Linux.
    try:
        while chunk := os.read(leader, 4096):
            written += chunk
    except OSError:
        pass
    os.close(leader)
    process.wait(timeout=60)
    return written.decode()
