"""Real signals in real processes: what is saved, how a fit ends, how it goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from preempted import CASES


@pytest.fixture(scope="session")
def ends(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """Run every case once; return their folder and how each ended."""
    work = tmp_path_factory.mktemp("preempted")
    driver = Path(__file__).with_name("preempted.py")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(driver), str(work)],
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    return work, json.loads(done.stdout)


@pytest.mark.parametrize("case", [case.__name__ for case in CASES])
def test_signal(case: str, ends: tuple[Path, dict[str, int]]) -> None:
    work, codes = ends
    expected = 143 if case in ("stubborn", "deadline_outside_of_python") else 0
    assert codes[case] == expected, (work / case / "output").read_text()


def test_deadline_says_what_is_left(ends: tuple[Path, dict[str, int]]) -> None:
    said = (ends[0] / "deadline/output").read_text()
    assert "within 0.2 s of SIGTERM: stopping without saving" in said
    assert "The last checkpoint is `checkpoints/epoch=0-step=4.ckpt`" in said


def test_first_ctrl_c_says_what_a_second_does(
    ends: tuple[Path, dict[str, int]],
) -> None:
    said = (ends[0] / "sigint/output").read_text()
    assert "Ctrl-C again stops at once" in said
    assert "Saved `checkpoints/interrupted-step=6.ckpt`" in said


def test_signal_to_one_process_stops_all_behind_the_same_batch(tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if name != "RANK"}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("preempted_together.py"))],
        cwd=tmp_path,
        env={**clean, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 143, done.stderr
    one, other = (
        json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)
    )
    assert one == other
    assert one["batches"] >= 6
    assert one["code"] == 143
    assert one["files"] == [f"interrupted-step={one['batches']}.ckpt"]
    assert one["left"] == []
    assert one["equal"]
