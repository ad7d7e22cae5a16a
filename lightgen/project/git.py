"""Decides about `git init`, and runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from lightgen.errors import UsageError


def decide(parent: Path, wish: bool | None, *, fresh: bool) -> bool:
    """Tell whether a project below `parent` becomes a repository.

    Args:
        parent: The folder that the project's folder is in.
        wish: What the user asked for; None leaves it to the circumstances.
        fresh: The project's folder is new.

    Raises:
        UsageError: If git was asked for and is not installed.
    """
    if wish is False:
        return False
    if shutil.which("git") is None:
        if wish is None:
            return False
        raise UsageError(
            "git is not installed",
            where="option --git",
            accepted="--no-git works without it",
            todo="install git, or leave the option out",
        )
    return True if wish else fresh and not _inside_work_tree(parent)


def initialize(root: Path) -> str:
    """Make `root` a repository unless it is one.

    Returns:
        git's complaint, or an empty text when all went well.
    """
    if (root / ".git").exists():
        return ""
    done = _git("init", "--quiet", cwd=root)
    return (
        done.stderr.strip() or f"exit code {done.returncode}" if done.returncode else ""
    )


def _inside_work_tree(folder: Path) -> bool:
    done = _git("rev-parse", "--is-inside-work-tree", cwd=folder)
    return done.returncode == 0 and done.stdout.strip() == "true"


def _git(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    # Inside a git hook these would point git at another repository.
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"}
    }
    return subprocess.run(
        ["git", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
