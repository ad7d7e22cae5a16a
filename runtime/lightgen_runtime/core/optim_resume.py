"""Going on with optimizers and schedulers that may be configured differently now.

What fits is restored. A setting that the code has changed between the runs takes its new
value, all others keep what the checkpoint holds; every change is told. What is of
another class starts anew. What looks alike and is not is an error.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lightgen_runtime.core.scheduler_state import changed_settings, load_scheduler_state
from lightgen_runtime.io.content_check import reading
from lightgen_runtime.utilities.exceptions import CheckpointMismatchError
from lightgen_runtime.utilities.rank_zero import rank_zero_info, rank_zero_warn

if TYPE_CHECKING:
    from lightgen_runtime.core.optim import OptimPlan, SchedulerConfig

WEIGHTS_ALONE = (
    "begin with its weights alone: `load_from_checkpoint`, or `--resume weights` of a "
    "project's command line"
)
"""What to do with a checkpoint that a fit cannot go on from; ends a sentence."""

_MOST_NAMES = 4  # in one message
# What a scheduler computes its rates from.
_RATES = {"lr", "max_lr", "min_lr"}
# State of torch's own optimizers that has its parameter's shape.
_LIKE_PARAMETER = ("exp_avg", "exp_avg_sq", "momentum_buffer", "square_avg", "sum")


def restore_optimizers(
    plan: OptimPlan,
    states: list[dict[str, Any]],
    scheduler_states: list[dict[str, Any]],
    record: Mapping[str, list[dict[str, Any]]] | None,
    steps: Mapping[str, int],
    source: str,
    spread: Callable[[Optimizer, dict[str, Any]], dict[str, Any]],
) -> None:
    """Put optimizers and schedulers back.

    Args:
        plan: Those of the fit, freshly made.
        states: The optimizers' states.
        scheduler_states: The schedulers' states.
        record: How they were configured; None for a file that does not say.
        steps: How many "step"s and "epoch"s the checkpoint is behind.
        source: Its path, for messages.
        spread: Gives an optimizer its part of a state, as the strategy holds it.

    Raises:
        CheckpointMismatchError: Their number, groups or shapes are not the fit's.
    """
    _check_count("optimizer", len(plan.optimizers), len(states), source)
    if record is None:
        count = len(scheduler_states)
        _check_count("scheduler", len(plan.schedulers), count, source)
    now = plan.record.state_dict(
        plan.optimizers, [c.scheduler for c in plan.schedulers]
    )
    made = [[dict(g) for g in o.param_groups] for o in plan.optimizers]
    restart: set[int] = set()  # optimizers whose rates are computed anew
    for number, (optimizer, state) in enumerate(
        zip(plan.optimizers, states, strict=True)
    ):
        ours = now["optimizers"][number]
        saved = record["optimizers"][number] if record is not None else None
        if saved is not None and saved["class"] != ours["class"]:
            rank_zero_warn(
                f"optimizer {number} is {ours['class']} now and was {saved['class']} in "
                f"`{source}`: weights and counters go on, its own state starts anew"
            )
            restart.add(number)
            continue
        if saved is not None:
            state = _in_our_order(number, ours, saved, state, source)
        state = spread(optimizer, state)
        _load(number, optimizer, state, saved is not None, source)
        if saved is not None:
            changed = _take_changes(number, optimizer, made[number], ours, saved)
            if changed & _RATES:
                restart.add(number)
    with reading("lr_schedulers", source):
        _restore_schedulers(
            plan, made, states, scheduler_states, record, restart, steps
        )


# ---- optimizers ----


def _check_count(what: str, have: int, saved: int, source: str) -> None:
    if have != saved:
        raise CheckpointMismatchError(
            f"`{source}` holds the state of {saved} {what}(s), and "
            f"`configure_optimizers` returns {have}. Resume with the configuration "
            f"that the checkpoint was trained with, or {WEIGHTS_ALONE}."
        )


def _in_our_order(
    number: int,
    ours: Mapping[str, Any],
    saved: Mapping[str, Any],
    state: dict[str, Any],
    source: str,
) -> dict[str, Any]:
    """Return the saved state with each group's parameters in the order they have now."""
    where = f"optimizer {number} ({ours['class']}) in `{source}`"
    remedy = (
        "Resume with the groups that the checkpoint was trained with, or "
        f"{WEIGHTS_ALONE}."
    )
    if len(ours["groups"]) != len(saved["groups"]):
        raise CheckpointMismatchError(
            f"the state of {where} has {len(saved['groups'])} parameter group(s), and "
            f"there are {len(ours['groups'])} now. {remedy}"
        )
    groups = [dict(group) for group in state["param_groups"]]
    for index, (one, other) in enumerate(
        zip(ours["groups"], saved["groups"], strict=True)
    ):
        mine, theirs = one["parameters"], other["parameters"]
        if sorted(mine) != sorted(theirs):
            raise CheckpointMismatchError(
                f"group {index} of {where} has other parameters than now: "
                f"{_difference(theirs, mine)}. {remedy}"
            )
        # A parameter without a name is no part of the module.
        if mine != theirs and len(set(mine)) == len(mine) and "optimizers" not in state:
            of_name = dict(zip(theirs, groups[index]["params"], strict=True))
            groups[index]["params"] = [of_name[name] for name in mine]
    return {**state, "param_groups": groups}


def _difference(theirs: list[str], mine: list[str]) -> str:
    gone, new = sorted(set(theirs) - set(mine)), sorted(set(mine) - set(theirs))
    parts = [f"{len(theirs)} then, {len(mine)} now"]
    parts += [f"no longer {_listed(gone)}"] if gone else []
    parts += [f"new {_listed(new)}"] if new else []
    return ", ".join(parts)


def _listed(names: list[str]) -> str:
    more = len(names) - _MOST_NAMES
    shown = ", ".join(f"`{name}`" for name in names[:_MOST_NAMES])
    return f"{shown} and {more} more" if more > 0 else shown


def _load(
    number: int, optimizer: Optimizer, state: dict[str, Any], known: bool, source: str
) -> None:
    # Before loading: that may add defaults which the file's torch did not have.
    settings = set(optimizer.defaults)
    try:
        with reading(f"optimizer_states[{number}]", source, but=ValueError):
            optimizer.load_state_dict(state)
        # torch takes another optimizer's settings without a word.
        missing = settings - optimizer.param_groups[0].keys()
        if missing and not known:
            raise ValueError(f"it lacks {sorted(missing)}")
    except ValueError as error:
        raise CheckpointMismatchError(
            f"the state of optimizer {number} in `{source}` does not fit "
            f"{type(optimizer).__name__}: {error}. Resume with the optimizer that the "
            f"checkpoint was trained with, or {WEIGHTS_ALONE}."
        ) from error
    if not known and type(optimizer).__module__.startswith("torch.optim"):
        _check_shapes(number, optimizer, source)


def _check_shapes(number: int, optimizer: Optimizer, source: str) -> None:
    """Refuse state of other parameters, which torch would pair by their number."""
    for index, group in enumerate(optimizer.param_groups):
        for position, parameter in enumerate(group["params"]):
            for name in _LIKE_PARAMETER:
                held = optimizer.state[parameter].get(name)
                if isinstance(held, Tensor) and held.shape != parameter.shape:
                    raise CheckpointMismatchError(
                        f"the state of optimizer {number} in `{source}` is of other "
                        f"parameters: `{name}` of parameter {position} in group {index} "
                        f"has shape {list(held.shape)}, and the parameter "
                        f"{list(parameter.shape)}. Return them in the order that the "
                        f"checkpoint was trained with, or {WEIGHTS_ALONE}."
                    )


def _take_changes(
    number: int,
    optimizer: Optimizer,
    made: list[dict[str, Any]],
    ours: Mapping[str, Any],
    saved: Mapping[str, Any],
) -> set[str]:
    """Set the options that are configured differently now; return their names."""
    changed: set[str] = set()
    for index, (one, other) in enumerate(
        zip(ours["groups"], saved["groups"], strict=True)
    ):
        group, before = optimizer.param_groups[index], other["options"]
        for name, value in one["options"].items():
            if name in before and _same(value, before[name]):
                continue
            group[name] = made[index][name]
            if name in before:
                changed.add(name)
                rank_zero_info(
                    f"optimizer {number}, group {index}: {name} {before[name]} -> {value} "
                    "(the new setting counts)"
                )
    return changed


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return str(one) == str(other)
    return bool(one == other)


# ---- schedulers ----


def _restore_schedulers(
    plan: OptimPlan,
    made: list[list[dict[str, Any]]],
    states: list[dict[str, Any]],
    scheduler_states: list[dict[str, Any]],
    record: Mapping[str, list[dict[str, Any]]] | None,
    restart: set[int],
    steps: Mapping[str, int],
) -> None:
    schedulers = [config.scheduler for config in plan.schedulers]
    now = plan.record.state_dict(plan.optimizers, schedulers)["schedulers"]
    saved = now if record is None else record["schedulers"]
    owners = [_owner(plan, scheduler) for scheduler in schedulers]
    alike = [
        number < len(saved) and saved[number]["class"] == entry["class"]
        for number, entry in enumerate(now)
    ]
    if len(saved) != len(now):
        restart.update(range(len(plan.optimizers)))
    for number, entry in enumerate(now):
        if not alike[number] or _tell_changes(number, entry, saved[number]):
            restart.add(owners[number])
    for index in restart - {-1}:
        for group, fresh in zip(
            plan.optimizers[index].param_groups, made[index], strict=False
        ):
            group.update({k: fresh[k] for k in ("lr", "initial_lr") if k in fresh})
    _tell_others(now, saved, alike)
    for number, config in enumerate(plan.schedulers):
        state = scheduler_states[number] if alike[number] else None
        index = owners[number]
        if index not in restart and state is not None:
            load_scheduler_state(config.scheduler, state)
        elif isinstance(config.scheduler, ReduceLROnPlateau):
            if state is not None:
                _resume_plateau(config.scheduler, state, now[number], saved[number])
                _keep_reductions(plan.optimizers[index], states[index], record, index)
        elif isinstance(config.scheduler, LRScheduler):
            _step_to(config, state, steps)
        elif state is not None:
            config.scheduler.load_state_dict(state)


def _owner(plan: OptimPlan, scheduler: Any) -> int:
    """Return the number of the optimizer that a scheduler drives; -1 if it does not say."""
    optimizer = getattr(scheduler, "optimizer", None)
    for number, each in enumerate(plan.optimizers):
        if each is optimizer or getattr(optimizer, "optimizer", None) is each:
            return number
    return -1


def _tell_changes(
    number: int, ours: Mapping[str, Any], saved: Mapping[str, Any]
) -> bool:
    """Tell which settings of a scheduler are others now, and whether there are any."""
    if ours["settings"] is None or saved["settings"] is None:
        return False
    changes = list(changed_settings(saved["settings"], ours["settings"]))
    for name, before, after in changes:
        rank_zero_info(
            f"scheduler {number} ({ours['class']}): {name} {before} -> {after} (the new "
            "setting counts)"
        )
    return bool(changes)


def _tell_others(
    now: list[dict[str, Any]], saved: list[dict[str, Any]], alike: list[bool]
) -> None:
    for number, fits in enumerate(alike):
        if not fits:
            was = saved[number]["class"] if number < len(saved) else "absent"
            rank_zero_warn(
                f"scheduler {number} is {now[number]['class']} now and was {was} in the "
                "checkpoint: it starts anew, where it would be by now"
            )
    for number in range(len(now), len(saved)):
        rank_zero_warn(
            f"scheduler {number} of the checkpoint, {saved[number]['class']}, is gone: "
            "rates are as they are configured now"
        )


def _resume_plateau(
    scheduler: ReduceLROnPlateau,
    state: dict[str, Any],
    ours: Mapping[str, Any],
    saved: Mapping[str, Any],
) -> None:
    """Restore what was seen so far; settings that have changed stay new."""
    kept = {}
    if ours["settings"] is not None and saved["settings"] is not None:
        changes = changed_settings(saved["settings"], ours["settings"])
        kept = {name: getattr(scheduler, name) for name, _, _ in changes}
    scheduler.load_state_dict(state)
    vars(scheduler).update(kept)


def _keep_reductions(
    optimizer: Optimizer,
    state: Mapping[str, Any],
    record: Mapping[str, Any] | None,
    number: int,
) -> None:
    """Reduce new rates as much as the old ones had been."""
    if record is None:
        return
    configured = record["optimizers"][number]["groups"]
    for group, old, entry in zip(
        optimizer.param_groups, state["param_groups"], configured, strict=False
    ):
        start = entry["options"].get("lr")
        if start:
            group["lr"] = group["lr"] * (float(old["lr"]) / start)


def _step_to(
    config: SchedulerConfig, state: dict[str, Any] | None, steps: Mapping[str, int]
) -> None:
    """Bring a fresh scheduler to where it would be, had it driven the run so far."""
    scheduler = config.scheduler
    done = steps[config.interval] // config.frequency
    if state is not None:
        done = int(state.get("last_epoch", done))
    done = min(done, getattr(scheduler, "total_steps", done))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no optimizer has stepped in between
        for _ in range(done):
            scheduler.step()
