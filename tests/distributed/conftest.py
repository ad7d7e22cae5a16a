"""Runs `cases.py` once for each number of processes; the tests look at its results."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from processes import ELASTIC, Results, found_in, program  # noqa: E402


@pytest.fixture(scope="session")
def elastic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which one number of processes goes on from another's files."""
    work = tmp_path_factory.mktemp("elastic")
    for world_size, steps in ELASTIC:
        done = program(
            *(str(HERE / "elastic_cases.py"), str(world_size), *steps),
            cwd=work,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
    return work


@pytest.fixture(scope="session")
def results(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Callable[[int], Results]:
    """Return a function from a number of processes to what each of them found.

    Four processes are started once only, and found less.
    """

    @cache
    def of(world_size: int) -> Results:
        if world_size == 4:
            work = request.getfixturevalue("elastic")
            return [
                json.loads((work / f"4_{rank}.json").read_text()) for rank in range(4)
            ]
        work = tmp_path_factory.mktemp(f"world_{world_size}")
        # torch's PowerSGD asks for a GPU wherever the machine has one.
        hidden = {"CUDA_VISIBLE_DEVICES": ""}
        done = program(str(HERE / "cases.py"), str(world_size), cwd=work, **hidden)
        assert done.returncode == 0, done.stderr
        texts = [(work / f"{rank}.json").read_text() for rank in range(world_size)]
        return [json.loads(text) for text in texts]

    return of


@pytest.fixture(scope="session")
def own(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what a program finds that starts its second process itself."""
    folder = tmp_path_factory.mktemp("own")
    cases = json.dumps({"own": ({}, {"devices": 2})})
    main = str(HERE / "launched_main.py")
    done = program(main, str(folder), cases, cwd=folder)
    assert done.returncode == 0, done.stderr
    found = found_in(folder / "own")[0]
    assert found["environment"] == "LightningEnvironment"
    return found
