"""Runs drawn at random do exactly the same on the runtime and on Lightning.

`SOAK_SEEDS=1000:1500` in the environment plays other seeds than the usual ones.
"""

from __future__ import annotations

import os
import pprint
from pathlib import Path

import pytest
from random_runs import draw
from recording import OURS, REFERENCE
from run_judge import first_difference
from run_player import play

first, last = os.environ.get("SOAK_SEEDS", "0:60").split(":")


@pytest.mark.parametrize("seed", range(int(first), int(last)))
@pytest.mark.filterwarnings("ignore")
def test_a_drawn_run_is_the_same(seed: int, tmp_path: Path) -> None:
    plan = draw(seed)
    tapes = []
    for namespace in (OURS, REFERENCE):
        folder = tmp_path / namespace
        folder.mkdir()
        tapes.append(play(namespace, plan, folder))
    difference = first_difference(*tapes)
    if difference is not None:
        pytest.fail(f"seed {seed}\n{pprint.pformat(plan)}\n{difference}", pytrace=False)
