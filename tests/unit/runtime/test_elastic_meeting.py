"""Where processes meet that a launcher, whose store stays, starts again and again."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import torch.distributed as dist

from lightgen_runtime.strategies import elastic

WORLD = 3
TCPStore: Any = getattr(dist, "TCPStore")  # noqa: B009


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The store of a torchrun."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    elastic.torchrun_launch.cache_clear()
    yield store
    elastic.torchrun_launch.cache_clear()


def start(ranks: list[int], timeout_s: float = 30) -> list[Any]:
    """Have processes come in this order; return what each got, a store or an error."""
    timeout = timedelta(seconds=timeout_s)
    with ThreadPoolExecutor(WORLD) as pool:
        came = [
            pool.submit(elastic.store_of_this_start, rank, WORLD, timeout)
            for rank in ranks
        ]
        return [each.exception() or each.result() for each in came]


def test_each_start_meets_where_no_other_has_been(launcher: Any) -> None:
    for number, order in enumerate(([0, 1, 2], [2, 1, 0], [1, 0, 2])):
        stores = start(order)
        assert not any(store.check(["address"]) for store in stores)
        stores[0].set("address", str(number))
        assert [store.get("address") for store in stores] == [b"%d" % number] * WORLD


def test_start_in_which_one_does_not_come_is_not_mixed_with_the_next(
    launcher: Any,
) -> None:
    for alone in ([0, 2], [1, 2], [0]):
        assert all(isinstance(e, RuntimeError) for e in start(alone, timeout_s=0.3))
    stores = start([1, 2, 0])
    stores[0].set("address", "here")
    assert [store.get("address") for store in stores] == [b"here"] * WORLD


def test_launch_is_known_by_the_name_that_its_first_process_leaves(
    launcher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = elastic.torchrun_launch()
    assert first is not None
    assert not first.is_again
    elastic.torchrun_launch.cache_clear()  # as in another process
    assert elastic.torchrun_launch() == elastic.Launch(first.name, is_again=True)
    elastic.torchrun_launch.cache_clear()
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "False")
    assert elastic.torchrun_launch() is None
    assert elastic.store_of_this_start(0, WORLD, timedelta(seconds=1)) is None
