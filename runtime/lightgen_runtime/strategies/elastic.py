"""Processes that torchrun has started, and may start again: who they are, where they meet.

The store of torchrun's own process lives through all restarts, so what processes of an
earlier start have left in it is still there.
"""

from __future__ import annotations

import os
import secrets
import time
from datetime import timedelta
from functools import cache
from typing import Any, NamedTuple

import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, TCPStore

_LAUNCH, _MEETING = "lightgen/launch", "lightgen/meeting"
_LOOK_EVERY_S = 0.05


class Launch(NamedTuple):
    """One call of torchrun.

    Attributes:
        name: Unlike that of any other call. The run's id would not do, which the user may
            give twice.
        is_again: Whether it has started this program before.
    """

    name: str
    is_again: bool


@cache
def torchrun_launch() -> Launch | None:
    """Return what has started this process; None if nothing would start it again.

    For rank 0: it is the first one that asks who learns that nobody did before.
    """
    own = secrets.token_hex(8)
    try:
        store = _store(timedelta(seconds=30))
        if store is None:
            return None
        # The first process that asks leaves a name there.
        name = store.compare_set(_LAUNCH, "", own).decode()
    except RuntimeError:  # it is gone
        return None
    return Launch(name, name != own)


def store_of_this_start(rank: int, world_size: int, timeout: timedelta) -> Any | None:
    """Return the part of torchrun's store that only these processes use.

    Collective. torch itself would have a process that is started again look up the
    addresses of those before it. None where torchrun keeps no store.

    Raises:
        DistStoreError: Not all processes have come in time.
    """
    store = _store(timeout)
    if store is None:
        return None
    end = time.monotonic() + timeout.total_seconds()
    meet = _call if rank == 0 else _answer
    return PrefixStore(meet(store, world_size, end), store)


def _store(timeout: timedelta) -> Any | None:
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(host, port, is_master=False, timeout=timeout)


def _call(store: Any, world_size: int, end: float) -> str:
    """Name a meeting, and hold it once all other processes have come."""
    meeting = f"{_MEETING}/{secrets.token_hex(8)}"
    store.set(_MEETING, meeting)
    while store.add(f"{meeting}/came", 0) < world_size - 1:
        _wait(end)
    store.set(f"{meeting}/complete", "")
    return meeting


def _answer(store: Any, world_size: int, end: float) -> str:
    """Come to the meeting that is named, until one is complete only with this process.

    One that was complete before is of an earlier start, and so is one that another takes
    the place of.
    """
    came_to = ""
    while True:
        meeting = store.get(_MEETING).decode()
        is_complete = store.check([f"{meeting}/complete"])
        if meeting == came_to and is_complete:
            return str(meeting)
        if meeting != came_to and not is_complete:
            store.add(f"{meeting}/came", 1)
            came_to = meeting
        _wait(end)


def _wait(end: float) -> None:
    if time.monotonic() > end:
        raise dist.DistStoreError("not all processes of this run have come in time")
    time.sleep(_LOOK_EVERY_S)
