"""The catalogue against the torch that is installed."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

from lightgen.errors import UnknownOptimizerError
from lightgen.optim.arguments import REQUIRED, Argument
from lightgen.optim.catalogue import (
    OPTIMIZERS,
    SCHEDULERS,
    find_optimizer,
    find_scheduler,
)
from lightgen.optim.entries import Entry

ENTRIES = [*OPTIMIZERS.values(), *SCHEDULERS.values()]


def classes(module: Any, base: type) -> set[str]:
    return {
        name
        for name, found in vars(module).items()
        if inspect.isclass(found) and issubclass(found, base) and found is not base
        if not name.startswith("_")
    }


def torch_class(entry: Entry) -> Any:
    home = torch.optim
    if entry.path.startswith("torch.optim.lr_scheduler"):
        home = torch.optim.lr_scheduler
    return getattr(home, entry.class_name)


def test_catalogue_has_every_optimizer() -> None:
    found = classes(torch.optim, torch.optim.Optimizer)
    assert {entry.class_name for entry in OPTIMIZERS.values()} == found


def test_catalogue_has_every_scheduler_but_the_compositions() -> None:
    found = classes(torch.optim.lr_scheduler, torch.optim.lr_scheduler.LRScheduler)
    known = {entry.class_name for entry in SCHEDULERS.values()}
    assert found - known == {"ChainedScheduler", "SequentialLR"}
    assert known <= found


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_arguments_and_defaults_are_those_of_torch(entry: Entry) -> None:
    theirs = {
        name: REQUIRED if parameter.default is parameter.empty else parameter.default
        for name, parameter in inspect.signature(torch_class(entry)).parameters.items()
        if name not in ("params", "optimizer", "last_epoch")
    }
    assert {found.name: found.default for found in entry.arguments} == theirs


def outside(argument: Argument) -> list[float]:
    """Values just beyond the limits that the catalogue states."""
    found = []
    if argument.least is not None:
        found.append(argument.least - 0.5)
    if argument.above is not None:
        found.append(argument.above)
    if argument.below is not None:
        found.append(argument.below)
    if argument.most is not None:
        found.append(argument.most + 0.5)
    return found


LIMITS = [
    (entry, argument)
    for entry in OPTIMIZERS.values()
    for argument in entry.arguments
    if argument.kind in ("number", "numbers") and outside(argument)
]
# torch takes any value of these and computes nonsense; the ranges are ours.
UNCHECKED_BY_TORCH = {
    ("lbfgs", "tolerance_grad"),
    ("lbfgs", "tolerance_change"),
    ("rprop", "step_sizes"),
    ("muon", "eps"),
}


@pytest.mark.parametrize(
    ("entry", "argument"), LIMITS, ids=[f"{e.name}-{a.name}" for e, a in LIMITS]
)
def test_limits_are_those_of_torch(entry: Any, argument: Argument) -> None:
    def refuses(value: float) -> bool:
        given: Any = value
        if argument.kind == "numbers":
            given = (value, *[max(value, 0.5)] * (argument.count - 1))
        try:
            torch_class(entry)([torch.nn.Parameter(torch.eye(2))], **{name: given})
        except ValueError:
            return True
        return False

    name = argument.name
    refused = all(refuses(value) for value in outside(argument))
    assert refused is ((entry.name, name) not in UNCHECKED_BY_TORCH)


@pytest.mark.parametrize("name", ["adamw", "AdamW", "ADAMW"])
def test_optimizer_is_found_in_any_case(name: str) -> None:
    assert find_optimizer(name, "here").class_name == "AdamW"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("exp", "exponential"),
        ("ReduceLROnPlateau", "plateau"),
        ("LinearLR", "linear"),
        ("ConstantLR", "constant"),
        ("Warmup", "warmup"),
    ],
)
def test_scheduler_is_found_by_name_alias_and_class(name: str, found: str) -> None:
    assert find_scheduler(name, "here").name == found


def test_unknown_name_is_answered_by_the_nearest() -> None:
    with pytest.raises(UnknownOptimizerError, match="no optimizer `adamww`") as error:
        find_optimizer("adamww", "here")
    assert error.value.todo == "did you mean `adamw`?"
