"""Prompts on a real pseudo-terminal."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import COPIER_YML, environment, put_files

pty = pytest.importorskip("pty", reason="needs a pseudo-terminal")
DEADLINE_S = 60


class Terminal:
    """A command on a pseudo-terminal, and everything it showed."""

    def __init__(self, *arguments: str, cwd: Path) -> None:
        self._leader, follower = pty.openpty()
        self.shown = ""
        self._seen = 0
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lightgen", *arguments],
            cwd=cwd,
            env=environment(TERM="xterm", PROMPT_TOOLKIT_NO_CPR="1"),
            stdin=follower,
            stdout=follower,
            stderr=follower,
            start_new_session=True,
        )
        os.close(follower)

    def read_until(self, text: str) -> None:
        """Wait for `text` to be shown after what was waited for before."""
        end = time.monotonic() + DEADLINE_S
        while (found := self.shown.find(text, self._seen)) < 0:
            if not self._read_chunk(end):
                raise AssertionError(f"{text!r} was never shown:\n{self.shown}")
        self._seen = found + len(text)

    def finish(self) -> int:
        end = time.monotonic() + DEADLINE_S
        while self._read_chunk(end):
            pass
        os.close(self._leader)
        return self.process.wait(timeout=DEADLINE_S)

    def type(self, keys: str) -> None:
        os.write(self._leader, keys.encode())

    def _read_chunk(self, end: float) -> bool:
        ready, _, _ = select.select([self._leader], [], [], end - time.monotonic())
        if not ready:
            return False
        try:
            chunk = os.read(self._leader, 4096)
        except OSError:  # Linux: the last writer has closed its end
            return False
        self.shown += chunk.decode(errors="replace")
        return bool(chunk)


@pytest.fixture
def template(tmp_path: Path) -> str:
    files = {"copier.yml": COPIER_YML, "files/README.md.jinja": "{{ width }}\n"}
    return str(put_files(tmp_path / "asking", files))


def test_terminal_is_asked_for_what_was_not_given(template: str, work: Path) -> None:
    terminal = Terminal(
        *("new", "mymodel", "--no-git", "--template", template, "--data", "lr=0.5"),
        cwd=work,
    )
    terminal.read_until("Width of the net")
    terminal.type("\x7f\x7f8\r")
    terminal.read_until("augment (bool)")
    terminal.type("y")
    terminal.read_until("task")
    terminal.type("\r")
    assert terminal.finish() == 0, terminal.shown
    state = json.loads((work / "mymodel/.lightgen/state.json").read_text())
    assert state["answers"] == {
        "package": "mymodel",
        "width": 8,
        "lr": 0.5,
        "augment": True,
        "task": "classification",
    }


def test_wrong_answer_is_asked_again(template: str, work: Path) -> None:
    given = ["lr=1", "augment=no", "task=regression"]
    pairs = [part for pair in given for part in ("--data", pair)]
    terminal = Terminal(
        "new", "mymodel", "--no-git", "--template", template, *pairs, cwd=work
    )
    terminal.read_until("Width of the net")
    terminal.type("\x7f\x7f0\r")
    terminal.read_until("the width must be at least 1")
    terminal.type("\x7f9\r")
    assert terminal.finish() == 0, terminal.shown
    assert (work / "mymodel/README.md").read_text() == "9\n"


def test_defaults_ask_nothing_on_a_terminal(template: str, work: Path) -> None:
    terminal = Terminal(
        "new", "mymodel", "--no-git", "--template", template, "--defaults", cwd=work
    )
    assert terminal.finish() == 0, terminal.shown
    assert (work / "mymodel/README.md").read_text() == "32\n"


def test_interrupted_prompt_leaves_nothing(template: str, work: Path) -> None:
    terminal = Terminal("new", "mymodel", "--template", template, cwd=work)
    terminal.read_until("Width of the net")
    terminal.type("\x03")
    assert terminal.finish() == 128 + signal.SIGINT
    assert "Traceback" not in terminal.shown
    assert list(work.iterdir()) == []


def test_conflict_is_told_before_anything_is_asked(template: str, work: Path) -> None:
    put_files(work / "mymodel", {"mine.txt": "mine"})
    terminal = Terminal("new", "mymodel", "--template", template, cwd=work)
    assert terminal.finish() == 3
    assert "Width of the net" not in terminal.shown
