"""The end of a program that has started the other processes of its run."""

from __future__ import annotations

import atexit
import sys

import pytest

from lightgen_runtime.strategies import launch
from lightgen_runtime.strategies.ranks import Ranks


@pytest.mark.parametrize("code", [0, 130])
def test_nobody_looks_at_processes_any_more(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that is inside of torch at the interpreter's end aborts the program."""
    command = [sys.executable, "-c", f"raise SystemExit({code})"]
    monkeypatch.setattr(launch, "own_command", lambda: command)
    ranks = Ranks(world_size=2, local_world_size=2)
    children = launch.Children(ranks, launch.own_store())
    children.failing = code != 0  # as after Ctrl-C, which all have got
    atexit.unregister(children._wait_at_exit)
    children._wait_at_exit()
    assert not children._thread.is_alive()
