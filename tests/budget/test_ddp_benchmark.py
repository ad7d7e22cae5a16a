"""The benchmark of two processes runs, and its contenders train alike."""

from __future__ import annotations

from pathlib import Path

import ddp


def test_steps_are_measured() -> None:
    found = ddp.steps_of_processes(quick=True)
    assert len(found) == len(ddp.ROWS)
    for comparison in found:
        assert {ddp.BY_HAND, ddp.OURS} <= comparison.ways.keys()
        for time, ratio in comparison.ways.values():
            assert time.median > 0
            assert ratio.median > 0


def test_a_start_is_measured(tmp_path: Path) -> None:
    *_, alone = ddp.starting(tmp_path).values()
    assert alone() > 0
