"""Runs commands in this process, and keeps the user's machine out of the tests."""

from __future__ import annotations

import gc
import shutil
import sys
import warnings
from pathlib import Path

import pytest
from command_line import (
    MINI_FILES,
    SHARED_FILES,
    Cli,
    Result,
    put_files,
    run_process,
)

from lightgen import cli
from lightgen.rendering import bundled


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


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of the vision template, to be copied."""
    folder = tmp_path_factory.mktemp("generated")
    done = run_process("new", "mymodel", "--defaults", "--no-git", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "mymodel"


@pytest.fixture
def project(generated: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of the vision template, and the folder that commands run in."""
    shutil.copytree(generated, work / "mymodel")
    monkeypatch.chdir(work / "mymodel")
    return work / "mymodel"
