"""What tests of the command line share: small templates, snapshots, processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import lightgen

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
STATE = {
    "schema": 1,
    "generator": "0.1.0",
    "package": "mymodel",
    "template": {"id": "vision", "version": "1", "digest": "", "source": "bundled"},
    "answers": {},
    "files": {},
    "blocks": {},
}
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
