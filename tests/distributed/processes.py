"""Running programs that start processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

# Programs of `elastic_cases.py` in order: number of processes, and their steps.
ELASTIC = [
    (2, [":a2:3"]),
    (1, [":a1:3", "a2:b1:5"]),
    (4, ["a2:c4:5", "b1::"]),
    (2, ["c4::", "a1::", "a2:::9"]),
]
# What every process found, by case.
Results = list[dict[str, Any]]


def clean_environment() -> dict[str, str]:
    """Return the environment with nothing of a launcher's in it."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "PL_GLOBAL_SEED")
    }
    return {**clean, "PYTHONWARNINGS": "ignore"}


def program(
    *command: str, cwd: Path, timeout: float = 240, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a Python program in `cwd` with nothing of a launcher's in its environment."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**clean_environment(), **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def found_in(folder: Path) -> Results:
    """Return what the processes of a run have written into a folder, by their ranks."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
