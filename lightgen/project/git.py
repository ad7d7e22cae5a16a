"""Decides about `git init`, and runs it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
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


@contextlib.contextmanager
def without_git_variables() -> Iterator[None]:
    """Hide the variables that would point git at another repository.

    git sets them for its hooks, and they outweigh the folder that git runs in.
    """
    hidden = {
        name: os.environ.pop(name)
        for name in _repository_variables()
        if name in os.environ
    }
    try:
        yield
    finally:
        os.environ.update(hidden)


def _repository_variables() -> tuple[str, ...]:
    command = ["git", "rev-parse", "--local-env-vars"]
    try:
        # Wherever this process stands may be gone.
        done = subprocess.run(command, cwd=os.sep, capture_output=True, text=True)
    except OSError:
        return ()
    return tuple(done.stdout.split()) if done.returncode == 0 else ()


def _git(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    with without_git_variables():
        return subprocess.run(
            ["git", *arguments], cwd=cwd, capture_output=True, text=True, check=False
        )
