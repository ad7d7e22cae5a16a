"""Runs `cases.py` once for each number of processes; the tests look at its results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

# What every process found, by case.
Results = list[dict[str, Any]]


def program(
    *command: str, cwd: Path, timeout: float = 120, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a Python program in `cwd` with nothing of a launcher's in its environment."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "PL_GLOBAL_SEED")
    }
    return subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**clean, "PYTHONWARNINGS": "ignore", **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Results]:
    """Return a function from a number of processes to what each of them found."""

    @cache
    def of(world_size: int) -> Results:
        work = tmp_path_factory.mktemp(f"world_{world_size}")
        done = program(str(HERE / "cases.py"), str(world_size), cwd=work)
        assert done.returncode == 0, done.stderr
        texts = [(work / f"{rank}.json").read_text() for rank in range(world_size)]
        return [json.loads(text) for text in texts]

    return of
