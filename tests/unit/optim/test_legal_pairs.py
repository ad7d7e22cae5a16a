"""Every optimizer with every scheduler: the legal pairs run, the others are refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import black
import pytest
import torch
from blocks import EPOCHS, STEPS, module_with, rates, source_of, spec_of
from torch.optim import lr_scheduler as torch_schedulers

from lightgen.errors import OptimizerOptionError
from lightgen.optim.catalogue import OPTIMIZERS, SCHEDULERS


def halve(step: int) -> float:
    return 0.5**step


# What a user writes, and what torch's constructor is given for the same.
SCHEDULES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "constant": (
        "constant:10st,factor=0.5",
        lambda o: torch_schedulers.ConstantLR(o, factor=0.5, total_iters=10),
    ),
    "cosine": (
        "cosine:eta_min=1e-6",
        lambda o: torch_schedulers.CosineAnnealingLR(o, STEPS, eta_min=1e-6),
    ),
    "cyclic": (
        "cyclic:base_lr=0.01,max_lr=0.2,step_size_up=25%",
        lambda o: torch_schedulers.CyclicLR(o, 0.01, 0.2, step_size_up=STEPS // 4),
    ),
    "exponential": (
        "exponential:gamma=0.9",
        lambda o: torch_schedulers.ExponentialLR(o, 0.9),
    ),
    "lambda": ("lambda:lr_lambda=halve", lambda o: torch_schedulers.LambdaLR(o, halve)),
    "linear": (
        "linear:50%,start_factor=0.1",
        lambda o: torch_schedulers.LinearLR(o, 0.1, total_iters=STEPS // 2),
    ),
    "multiplicative": (
        "multiplicative:lr_lambda=halve",
        lambda o: torch_schedulers.MultiplicativeLR(o, halve),
    ),
    "multistep": (
        "multistep:milestones=25%:50%",
        lambda o: torch_schedulers.MultiStepLR(o, [EPOCHS // 4, EPOCHS // 2]),
    ),
    "onecycle": (
        "onecycle:max_lr=0.3",
        lambda o: torch_schedulers.OneCycleLR(o, 0.3, total_steps=STEPS),
    ),
    "plateau": (
        "plateau:monitor=val_loss,patience=1,factor=0.5",
        lambda o: torch_schedulers.ReduceLROnPlateau(o, patience=1, factor=0.5),
    ),
    "polynomial": (
        "polynomial:power=2",
        lambda o: torch_schedulers.PolynomialLR(o, total_iters=STEPS, power=2),
    ),
    "restarts": (
        "restarts:T_0=2ep,T_mult=2",
        lambda o: torch_schedulers.CosineAnnealingWarmRestarts(
            o, 2 * STEPS // EPOCHS, T_mult=2
        ),
    ),
    "step": (
        "step:step_size=2ep,gamma=0.5",
        lambda o: torch_schedulers.StepLR(o, 2, gamma=0.5),
    ),
}
# By Lightning's own words, and torch's: these have no momentum to cycle.
ILLEGAL = {
    (optimizer, scheduler)
    for optimizer in ("adadelta", "adafactor", "adagrad", "asgd", "lbfgs", "rprop")
    for scheduler in ("cyclic", "onecycle")
}
PAIRS = [(o, s) for o in OPTIMIZERS for s in SCHEDULES]


def option(optimizer: str) -> str:
    return f"{optimizer}:lr=0.1" + ("@ndim==2" if OPTIMIZERS[optimizer].dims else "")


def weight(optimizer: str) -> torch.nn.Module:
    """A module whose parameter has a gradient of the kind that the optimizer takes."""
    layer = torch.nn.Embedding(3, 2, sparse=optimizer == "sparseadam")
    layer(torch.tensor([0, 1])).sum().backward()
    return layer


def test_every_scheduler_of_the_catalogue_is_tried() -> None:
    classes = {entry.class_name for entry in SCHEDULERS.values()}
    assert {SCHEDULERS[name].class_name for name in SCHEDULES} == classes
    assert len(PAIRS) == 195
    assert len(ILLEGAL) == 12


@pytest.mark.parametrize(
    ("optimizer", "scheduler"), [p for p in PAIRS if p not in ILLEGAL]
)
def test_legal_pair_is_written_and_steps_as_torch_does(
    optimizer: str, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, by_hand = SCHEDULES[scheduler]
    spec = spec_of(option(optimizer), schedule=text)
    source = source_of(spec)
    assert black.format_str(source, mode=black.Mode()) == source
    if "halve" in text:
        # The user's function is one that the module's file sees.
        monkeypatch.setattr("builtins.halve", halve, raising=False)
    module = module_with(spec, {"layer": weight(optimizer)})
    returned = module.configure_optimizers()
    config = returned["lr_scheduler"]
    assert config["interval"] == SCHEDULERS[scheduler].interval
    assert config.get("monitor") == ("val_loss" if scheduler == "plateau" else None)
    made = returned["optimizer"]
    assert type(made).__name__ == OPTIMIZERS[optimizer].class_name

    steps = STEPS if config["interval"] == "step" else EPOCHS
    steps -= scheduler == "onecycle"  # which refuses a step past its end
    other = type(made)(list(weight(optimizer).parameters()), lr=0.1)
    expected = rates(by_hand(other), other, steps)
    assert len({rate for (rate,) in expected}) > 1
    assert rates(config["scheduler"], made, steps) == expected


@pytest.mark.parametrize(("optimizer", "scheduler"), sorted(ILLEGAL))
def test_illegal_pair_is_refused_with_the_remedy(
    optimizer: str, scheduler: str
) -> None:
    text, by_hand = SCHEDULES[scheduler]
    entry = OPTIMIZERS[optimizer]
    made = getattr(torch.optim, entry.class_name)(weight(optimizer).parameters())
    with pytest.raises((ValueError, KeyError)):
        by_hand(made)
    with pytest.raises(OptimizerOptionError) as error:
        spec_of(option(optimizer), schedule=text)
    assert f"`{optimizer}` has none" in str(error.value)
    remedy = re.search(r"accepted: (\S+)", str(error.value))
    assert remedy is not None
    assert remedy[1] == f"{scheduler}:cycle_momentum=false"
    fixed = spec_of(option(optimizer), schedule=f"{text},cycle_momentum=false")
    module = module_with(fixed, {"layer": weight(optimizer)})
    assert module.configure_optimizers()["lr_scheduler"]["scheduler"]
