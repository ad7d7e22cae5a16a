"""Reading code back: what the emitter writes says what it was written from."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import pytest
from blocks import source_of, spec_of
from corpus import FREEZES, GROUPS, SCHEDULES
from corpus import OPTIMIZERS as TEXTS

from lightgen.errors import OptimizerOptionError
from lightgen.optim.catalogue import OPTIMIZERS, SCHEDULERS
from lightgen.optim.options import DEFAULT, OptimizerOptions, as_options, resolve
from lightgen.optim.reading.method import Reading, read_method
from lightgen.optim.recipes import RECIPES
from lightgen.optim.rules import check_spec
from lightgen.optim.spec import (
    OptimSpec,
    from_record,
    parse_optimizer,
    with_arguments,
)
from lightgen.regen.names import Names

MORE = [
    spec_of(
        "g=adam:lr=0.1@gen",
        "d=sgd:lr=0.2@disc",
        schedule={"g": "cosine", "d": "step:step_size=3ep"},
    ),
    spec_of("g=adam:lr=0.1@gen", "d=adam:lr=0.2@disc,x.*", schedule="cosine"),
    spec_of("adam:lr=hparams.lr,betas=hparams.b1:0.9", schedule="cosine"),
    spec_of("sgd:lr=0.1", schedule="exponential:gamma=0.9 + step:step_size=2ep"),
    spec_of("sgd:lr=0.1", schedule="warmup:3ep > restarts:T_0=4ep"),
    spec_of("sgd:lr=0.1", schedule="warmup:1ep > hold:20% > decay:9st,end_factor=0.1"),
    spec_of("sgd:lr=0.1", schedule="lambda:lr_lambda=a.f,frequency=2,name=x"),
    spec_of("adamw@net", schedule="cyclic:base_lr=0.001,step_size_up=5%"),
    spec_of("adamw", schedule="polynomial:power=hparams.power,total_iters=hparams.n"),
    spec_of("adafactor:eps=none:0.001", schedule="cosine:100%,eta_min=0.01"),
]


def specs() -> Iterator[OptimSpec]:
    for optimizer, schedule, groups, freeze in product(
        TEXTS, SCHEDULES, GROUPS, dict.fromkeys(FREEZES)
    ):
        try:
            yield spec_of(optimizer, schedule=schedule, groups=groups, freeze=freeze)
        except OptimizerOptionError:
            continue
    yield from (from_record(recipe.record) for recipe in RECIPES.values())
    yield from MORE


def read(text: str) -> Reading:
    tree = ast.parse(text)
    (class_,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    (method,) = (node for node in class_.body if isinstance(node, ast.FunctionDef))
    return read_method(tree, class_, method, Names(tree).path)


def without_empty(spec: OptimSpec) -> OptimSpec:
    """Leave out schedules of nothing: code cannot tell them from none."""
    said = tuple(pair for pair in spec.schedules if pair[1])
    return replace(spec, schedules=said)


def with_rates(spec: OptimSpec) -> OptimSpec:
    """Set what torch would take anyway."""
    optimizers = []
    for optimizer in spec.optimizers:
        argument = optimizer.entry.argument("lr")
        assert argument is not None
        rate = optimizer.value("lr") or argument.default
        assert not isinstance(rate, (str, bool))
        optimizers.append(with_arguments(optimizer, {"lr": rate}))  # type: ignore[dict-item]
    return replace(spec, optimizers=tuple(optimizers))


def test_what_is_written_reads_back_as_the_same() -> None:
    count = 0
    for spec in specs():
        for manual in (False, True):
            reading = read(source_of(spec, manual=manual))
            assert reading.problems == []
            assert reading.spec == without_empty(spec)
            count += 1
    assert count > 700


def test_options_of_a_specification_ask_for_the_same() -> None:
    names = {"--optimizer": "optimizer", "--schedule": "schedule"} | {
        "--no-decay": "no_decay",
        "--lr-scale": "lr_scale",
        "--layer-decay": "layer_decay",
        "--layers": "layers",
        "--freeze": "freeze",
    }
    for spec in specs():
        words = as_options(spec)
        given: dict[str, object] = {}
        for word, value in zip(words[::2], words[1::2], strict=True):
            many = word in ("--optimizer", "--schedule", "--lr-scale", "--freeze")
            former = given.get(names[word], [])
            assert isinstance(former, list)
            given[names[word]] = [*former, value] if many else value
        asked = resolve(OptimizerOptions(**given), None)  # type: ignore[arg-type]
        assert without_empty(asked) == with_rates(without_empty(spec))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_reads_back(name: str) -> None:
    select = "@ndim==2" if OPTIMIZERS[name].dims else ""
    spec = spec_of(f"{name}:lr=0.25{select}")
    assert read(source_of(spec)).spec == without_empty(spec)


REQUIRED = {
    "cyclic": "base_lr=0.1,cycle_momentum=false",
    "exponential": "gamma=0.9",
    "lambda": "lr_lambda=f",
    "multiplicative": "lr_lambda=f",
    "multistep": "milestones=10%:50%",
    "onecycle": "cycle_momentum=false",
    "plateau": "monitor=val_loss",
    "restarts": "T_0=5%",
    "step": "step_size=1ep",
}


@pytest.mark.parametrize("interval", ["step", "epoch"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_reads_back(name: str, interval: str) -> None:
    items = ",".join(filter(None, [REQUIRED.get(name), f"interval={interval}"]))
    text = f"{name}:{items}"
    spec = spec_of("sgd:lr=0.5", schedule=text)
    if name == "step" and interval == "step":  # an epoch is asked for in steps
        assert "steps_per_epoch" in source_of(spec)
    found = read(source_of(spec)).spec
    assert found is not None
    check_spec(found)
    assert source_of(found) == source_of(spec)


def test_default_block_reads_back() -> None:
    spec = OptimSpec((parse_optimizer(DEFAULT),))
    assert read(source_of(spec)).spec == spec
