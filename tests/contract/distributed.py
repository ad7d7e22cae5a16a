"""Runs `distributed_script.py` with both packages, for the tests about several processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from recording import OURS, REFERENCE

PACKAGES = REFERENCE, OURS
SCRIPT = Path(__file__).parent / "distributed_script.py"


@cache
def found_by(package: str, folder: Path) -> list[dict[str, Any]]:
    """Return what each of two processes found."""
    work = folder / package
    work.mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(SCRIPT), package],
        cwd=work,
        env={k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK")},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads((work / f"{rank}.json").read_text()) for rank in range(2)]
