"""Putting a scheduler back where it was, in a run that may be longer now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingLR,
    LinearLR,
    OneCycleLR,
    PolynomialLR,
    SequentialLR,
)

_LENGTHS = ("T_max", "total_iters", "total_steps")
# What follows from the optimizer's rates, or from the run's length.
_NO_SETTINGS = {*_LENGTHS, "base_lrs", "_last_lr", "_schedule_phases", "_milestones"}


def changed_settings(
    before: Mapping[str, Any], after: Mapping[str, Any], path: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Yield name, former and new value of each setting that two schedulers differ in.

    Args:
        before: `state_dict` of the former one, before its first step.
        after: That of the new one.
        path: Where in a scheduler of several these are.
    """
    for name, value in after.items():
        old = before.get(name)
        if name in _NO_SETTINGS or old is None or value is None:
            continue
        if name == "_schedulers":
            for number, (one, other) in enumerate(zip(old, value, strict=False)):
                yield from changed_settings(one, other, f"{path}[{number}].")
        elif str(old) != str(value):
            yield f"{path}{name}", old, value


def load_scheduler_state(scheduler: Any, state: dict[str, Any]) -> None:
    """Restore a scheduler's position; its length stays that of the new run.

    What comes down to its end goes on as a run of the new length would there.

    Args:
        scheduler: Freshly made, for the run as it is now.
        state: What its `state_dict` was.

    Raises:
        ValueError: `state` would replace a method, or the optimizer.

    Compat: torch and Lightning restore the old length too, so that after the old end a
    cosine rises again and `OneCycleLR` raises.
    """
    fresh = scheduler.state_dict()
    odd = [name for name in state if name not in fresh and hasattr(scheduler, name)]
    if odd:  # torch takes any attribute
        raise ValueError(f"it has {odd}, which are no state of a scheduler")
    scheduler.load_state_dict(state)
    _follow(scheduler, fresh)


def _follow(scheduler: Any, fresh: dict[str, Any]) -> None:
    """Give a restored scheduler the lengths of a fresh one, as far as they lie ahead."""
    if isinstance(scheduler, SequentialLR):
        _follow_sequence(scheduler, fresh)
    elif isinstance(scheduler, ChainedScheduler):
        for inner, its in zip(scheduler._schedulers, fresh["_schedulers"], strict=True):
            _set_lengths(inner, its)
    elif _set_lengths(scheduler, fresh):
        _take_its_rate(scheduler)


def _set_lengths(scheduler: Any, fresh: dict[str, Any]) -> bool:
    """Take over the lengths of a fresh scheduler; tell whether they are others."""
    if not _is_elastic(scheduler):
        return False
    own = [name for name in _LENGTHS if name in fresh and hasattr(scheduler, name)]
    lengths = {name: fresh[name] for name in own}
    changed = any(getattr(scheduler, name) != end for name, end in lengths.items())
    vars(scheduler).update(lengths)
    if "_schedule_phases" in fresh:
        scheduler._schedule_phases = fresh["_schedule_phases"]
    return changed


def _take_its_rate(scheduler: Any) -> None:
    """Set the rates to what the scheduler's formula gives where it stands."""
    formula = getattr(scheduler, "_get_closed_form_lr", None)
    if formula is None:  # OneCycleLR computes each rate from its step anyway
        return
    rates = formula()
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = rates


def _is_elastic(scheduler: Any) -> bool:
    """Tell whether a scheduler under way may end later.

    torch computes each rate from the one before. What comes down to its end gets there
    from any rate; what rises would overshoot.
    """
    if isinstance(scheduler, LinearLR):
        return scheduler.end_factor == 0
    return isinstance(scheduler, (CosineAnnealingLR, OneCycleLR, PolynomialLR))


def _follow_sequence(scheduler: SequentialLR, fresh: dict[str, Any]) -> None:
    milestones, planned = scheduler._milestones, list(fresh["_milestones"])
    stages, inner = scheduler._schedulers, fresh["_schedulers"][-1]
    active = sum(milestone <= scheduler.last_epoch for milestone in milestones)
    # A warm-up under way ends where it would have.
    ahead = active + (not _is_elastic(stages[active]))
    milestones[ahead:] = planned[ahead:]
    last = next((inner[name] for name in _LENGTHS if name in inner), 0)
    ends = [*milestones, planned[-1] + last]
    for number in range(ahead, len(stages)):
        start = milestones[number - 1] if number else 0
        lengths = {name: max(1, ends[number] - start) for name in _LENGTHS}
        if _set_lengths(stages[number], lengths) and number == active:
            _take_its_rate(stages[number])
