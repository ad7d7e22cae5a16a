"""A schedule that goes on in a longer run ends where the new run ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler as schedulers

from lightgen_runtime.core.scheduler_state import load_scheduler_state

Make = Callable[[Any, int], Any]


def warm_up_then_cosine(optimizer: Any, total: int) -> Any:
    warm_up = total // 5
    return schedulers.SequentialLR(
        optimizer,
        schedulers=[
            schedulers.LinearLR(optimizer, start_factor=0.1, total_iters=warm_up),
            schedulers.CosineAnnealingLR(optimizer, T_max=total - warm_up),
        ],
        milestones=[warm_up],
    )


def chained(optimizer: Any, total: int) -> Any:
    parts = [
        schedulers.CosineAnnealingLR(optimizer, T_max=total),
        schedulers.ExponentialLR(optimizer, 0.99),
    ]
    return schedulers.ChainedScheduler(parts, optimizer=optimizer)


FALLING: dict[str, Make] = {
    "cosine": lambda o, total: schedulers.CosineAnnealingLR(o, T_max=total),
    "polynomial": lambda o, total: schedulers.PolynomialLR(o, total_iters=total),
    "sequence": warm_up_then_cosine,
    "chained": chained,
    "onecycle": lambda o, total: schedulers.OneCycleLR(o, 0.1, total_steps=total + 1),
}


def rates(make: Make, total: int, steps: int, state: Any = None) -> tuple[Any, Any]:
    """Step a fresh pair, restored if there is a state; return the rates and the state."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = make(optimizer, total)
    if state is not None:
        optimizer.load_state_dict(state[0])
        load_scheduler_state(scheduler, state[1])
    found = []
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
        found.append(optimizer.param_groups[0]["lr"])
    return found, (optimizer.state_dict(), scheduler.state_dict())


@pytest.mark.parametrize("name", sorted(set(FALLING) - {"onecycle"}))
def test_prolonged_run_ends_its_schedule_at_the_new_end(name: str) -> None:
    _, state = rates(FALLING[name], total=20, steps=10)
    rest, _ = rates(FALLING[name], total=40, steps=30, state=state)
    assert rest == sorted(rest, reverse=True)
    assert rest[9] > 0.01  # where the old run would have ended
    assert rest[-1] < 1e-3


@pytest.mark.parametrize("name", FALLING)
def test_run_of_the_same_length_goes_on_as_if_never_interrupted(name: str) -> None:
    whole, _ = rates(FALLING[name], total=20, steps=20)
    first, state = rates(FALLING[name], total=20, steps=8)
    rest, _ = rates(FALLING[name], total=20, steps=12, state=state)
    assert first + rest == whole


def test_warm_up_that_is_over_is_not_repeated() -> None:
    first, state = rates(warm_up_then_cosine, total=20, steps=6)
    rest, _ = rates(warm_up_then_cosine, total=100, steps=94, state=state)
    assert max(first) == pytest.approx(0.1)
    assert rest == sorted(rest, reverse=True)
    assert rest[-1] < 1e-3


def test_warm_up_under_way_ends_where_it_would_have() -> None:
    _, state = rates(warm_up_then_cosine, total=20, steps=2)
    rest, _ = rates(warm_up_then_cosine, total=100, steps=98, state=state)
    assert rest.index(max(rest)) == 4 - 2 - 1
    assert max(rest) == pytest.approx(0.1)
    assert rest[-1] < 1e-3


@pytest.mark.parametrize("name", ["cosine", "polynomial", "onecycle"])
@pytest.mark.parametrize("steps", [10, 20])
def test_rates_are_those_of_a_longer_run(name: str, steps: int) -> None:
    """Also after the end, where the old run's rate was 0 and nothing would be trained."""
    _, state = rates(FALLING[name], total=20, steps=steps)
    rest, _ = rates(FALLING[name], total=40, steps=40 - steps, state=state)
    whole, _ = rates(FALLING[name], total=40, steps=40)
    assert rest == pytest.approx(whole[steps:], abs=1e-12)


def test_one_cycle_is_where_a_longer_run_would_be_and_does_not_raise() -> None:
    _, state = rates(FALLING["onecycle"], total=20, steps=10)
    rest, _ = rates(FALLING["onecycle"], total=40, steps=30, state=state)
    whole, _ = rates(FALLING["onecycle"], total=40, steps=40)
    assert rest == whole[10:]


def test_scheduler_of_the_users_own_is_restored_as_it_was() -> None:
    class Own:
        total_iters = 3

        def state_dict(self) -> dict[str, Any]:
            return {"total_iters": self.total_iters}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.total_iters = state["total_iters"]

    own = Own()
    load_scheduler_state(own, {"total_iters": 9})
    assert own.total_iters == 9
