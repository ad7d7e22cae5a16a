"""Drives the command line as a user would, and keeps the user's machine out of it."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import lightgen
from lightgen import cli
from lightgen.rendering import bundled

COPIER_YML = """\
_subdirectory: files
_templates_suffix: .jinja
_min_copier_version: "9.15.0"
_envops:
  undefined: jinja2.StrictUndefined
template_version:
  type: str
  default: "7"
  when: false
template_title:
  type: str
  default: A small project
  when: false
package:
  type: str
  help: Import name
width:
  type: int
  help: Width of the net
  default: 32
  validator: "{% if width < 1 %}the width must be at least 1{% endif %}"
lr:
  type: float
  default: 0.1
augment:
  type: bool
  default: false
task:
  type: str
  choices: [classification, regression]
  default: classification
"""

MINI_FILES = {
    "copier.yml": COPIER_YML,
    "files/README.md.jinja": "# {{ package }}\n\n{{ task }}\n",
    "files/config.yaml.jinja": "model:\n  width: {{ width }}\n  lr: {{ lr }}\n",
    "files/pyproject.toml.jinja": '[project]\nname = "{{ package }}"\n',
    "files/src/{{ package }}/__init__.py.jinja": '"""{{ package }}."""\n',
    "files/src/{{ package }}/__main__.py.jinja": (
        '{% include "_shared/main.py.jinja" %}'
    ),
    "files/src/{{ package }}/data.bin": "\x00\x01",
}
SHARED_FILES = {"main.py.jinja": "print( 'width', {{ width }} )\n"}
FORMATTED_MAIN = 'print("width", 32)\n'


@dataclass(frozen=True)
class Result:
    """What a command left: its exit code and its two streams."""

    code: int
    out: str
    err: str


Cli = Callable[..., Result]


def put_files(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def snapshot(folder: Path) -> dict[str, tuple[int, bytes | str]]:
    """Record every name below `folder` with its mode and content."""
    found: dict[str, tuple[int, bytes | str]] = {}
    for path in sorted(folder.rglob("*")):
        content: bytes | str = "folder"
        if path.is_symlink():
            content = str(path.readlink())
        elif path.is_file():
            content = path.read_bytes()
        found[path.relative_to(folder).as_posix()] = (path.lstat().st_mode, content)
    return found


def environment(**extra: str) -> dict[str, str]:
    """Build the environment of a child process that can import this lightgen."""
    source = str(Path(lightgen.__file__).parents[1])
    return os.environ | {"PYTHONPATH": source} | extra


def run_process(
    *arguments: str, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lightgen", *arguments],
        cwd=cwd,
        env=env or environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture(autouse=True)
def _private_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every test its own home and working folder, and no git settings."""
    for name in ("home", "work"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home/cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home/config"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("GIT_DIR", raising=False)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """The folder that commands run in."""
    return tmp_path / "work"


@pytest.fixture
def templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of bundled templates with one, `vision`, small and quick."""
    root = tmp_path / "templates"
    put_files(root / "vision", MINI_FILES)
    put_files(root / "_shared", SHARED_FILES)
    monkeypatch.setattr(bundled, "bundled_root", lambda: root)
    return root


@pytest.fixture
def run_cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run a command in this process."""

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["lightgen", *arguments])
        capsys.readouterr()
        with warnings.catch_warnings():
            # copier leaves a folder listing open when a template is broken.
            warnings.filterwarnings("ignore", "unclosed scandir", ResourceWarning)
            try:
                cli.main()
            except SystemExit as stopped:
                code = stopped.code
            else:
                pytest.fail("the program did not exit")
            if code:
                gc.collect()
        captured = capsys.readouterr()
        assert isinstance(code, int)
        return Result(code, captured.out, captured.err)

    return run
