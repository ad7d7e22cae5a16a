"""The benchmark of checkpoints runs, and an asynchronous save takes one copy of the state."""

from __future__ import annotations

import sys

import pytest

import checkpoint


def test_every_way_is_measured() -> None:
    background, at_once, loading = checkpoint.measure(quick=True)
    assert {checkpoint.OURS_ASYNC, "`dcp.async_save`"} <= background.ways.keys()
    assert checkpoint.OURS in at_once.ways
    assert checkpoint.OURS_FOLDER in loading.ways
    for comparison in (background, at_once, loading):
        for time, ratio in comparison.ways.values():
            assert time.median > 0
            assert ratio.median > 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_two_saves_in_the_background_take_one_copy() -> None:
    # Less than one where the process had some memory left over.
    assert 0.4 < checkpoint.memory_of(checkpoint.OURS_ASYNC, quick=True) < 1.4
