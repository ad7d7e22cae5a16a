"""The store by which processes tell each other of failures, at its end and behind it."""

from __future__ import annotations

import queue
import threading
from typing import Any

import pytest
import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore

from lightgen_runtime.strategies import flight_record, watch


class Gone:
    """A store whose process has ended."""

    def check(self, *_: Any) -> Any:
        raise dist.DistNetworkError("Connection reset by peer")

    compare_set = add = get = set = check


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return how many calls were begun and done, and a queue of codes that end it."""
    position, codes = [4, 4], queue.Queue[int]()
    monkeypatch.setattr(watch, "_LOOK_EVERY_S", 0.005)
    monkeypatch.setattr(watch, "_STUCK_S", 0.02)
    monkeypatch.setattr(watch, "_GRACE_S", 0.1)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(flight_record, "position", lambda cuda: tuple(position))
    monkeypatch.setattr(flight_record, "described", lambda *_: "`barrier` at fit.py:3")

    def leave(code: int) -> None:
        codes.put(code)
        watched._over.set()

    monkeypatch.setattr(watch, "leave", leave)
    watched = watch.Watch(Gone(), 2, cuda=False)
    watched.begin_run("fit.py:1")
    yield watched, position, codes
    watched._over.set()
    watched._thread.join()


def test_process_that_waits_says_so_and_ends(
    calls: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    _, position, codes = calls
    position[0] = 5
    assert codes.get(timeout=60) == 1
    said = capsys.readouterr().err
    assert "Rank 2 ends: the process at which all have met (rank 0" in said
    assert "waited for the others: `barrier` at fit.py:3" in said


@pytest.mark.parametrize("is_ending", [False, True])
def test_process_that_waits_for_nobody_goes_on(is_ending: bool, calls: Any) -> None:
    """Behind the run, or with an error of its own that is on its way."""
    watched, position, codes = calls
    watched.is_ending = is_ending
    position[0] += is_ending
    looks = threading.Semaphore(0)
    count = flight_record.position

    def counted(cuda: bool) -> Any:
        looks.release()
        return count(cuda)

    flight_record.position = counted
    for _ in range(60):  # three times as long as it would take
        assert looks.acquire(timeout=60)
    assert codes.empty()


def test_store_is_held_until_the_others_have_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watch, "_GRACE_S", 60.0)
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    first = watch.Watch(store.clone(), 0, cuda=False, holds_for=[1])
    other = watch.Watch(store.clone(), 1, cuda=False)
    for each in (first, other):
        each.begin_run("fit.py:1")
    ending = threading.Thread(target=first.note_exit)
    ending.start()
    store.wait([first._key("gone/0")])  # which the others can see
    ending.join(0.2)
    assert ending.is_alive()
    other.note_exit()
    ending.join(60)
    assert not ending.is_alive()
