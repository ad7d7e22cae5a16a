"""What an error of one process alone leaves."""

from __future__ import annotations

from pathlib import Path

from processes import program


def test_failing_process_waits_for_no_other_to_save(tmp_path: Path) -> None:
    driver = Path(__file__).with_name("parted.py")
    done = program(str(driver), cwd=tmp_path, timeout=60, PYTHONWARNINGS="default")
    assert done.returncode != 0
    assert "ZeroDivisionError" in done.stderr
    assert "parted the processes" in done.stderr
    assert not list(tmp_path.glob("left/*"))
