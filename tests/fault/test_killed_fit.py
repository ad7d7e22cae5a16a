"""A fit that is killed and gone on with ends as one that nobody killed, bit for bit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("needs fork and SIGKILL", allow_module_level=True)

ROOT = Path(__file__).parents[2]
FOLDERS = [ROOT, ROOT / "runtime", ROOT / "tests" / "unit" / "runtime"]
# Kills from outside, at any moment; the test kills inside, at each batch, without it.
KILLS = int(os.environ.get("LIGHTGEN_KILLS", "0"))


@pytest.mark.slow
@pytest.mark.timeout(0 if KILLS else 850)
def test_killed_fit_is_gone_on_with_exactly(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            Path(__file__).with_name("killed_fits.py"),
            tmp_path,
            str(KILLS),
        ],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, FOLDERS))},
        capture_output=True,
        text=True,
        check=False,
        timeout=None if KILLS else 800,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    killed = dict(line.rsplit(": ", 1) for line in done.stdout.splitlines())
    assert set(killed) == {
        "automatic",
        "accumulating",
        "manual",
        "workers",
        "validation",
    }
    assert all(int(number) >= 8 for number in killed.values()), killed
