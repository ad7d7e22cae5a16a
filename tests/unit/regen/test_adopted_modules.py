"""Hand-written blocks: read, recorded, and from then on regenerated."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from adopted import (
    CASES,
    NAMES,
    REFUSED,
    case,
    commented,
    comments,
    observe,
    own_lines,
    remarks,
    with_block,
)

from lightgen.blocks.adoption import adopt
from lightgen.blocks.optimizer import OptimizerBlock, plan
from lightgen.blocks.optimizer import with_block as recorded
from lightgen.errors import AdoptionError, UsageError
from lightgen.optim.options import OptimizerOptions, resolve
from lightgen.optim.spec import OptimSpec, to_record
from lightgen.project.state import ProjectState, plain_state

ONE = {
    "rate": OptimizerOptions(lr="0.02"),
    "argument": OptimizerOptions(weight_decay="0.03"),
    "optimizer": OptimizerOptions(optimizer=["sgd:lr=0.05,momentum=0.9"]),
    "optimizer of another kind": OptimizerOptions(optimizer=["adamw:lr=0.05"]),
    "no schedule": OptimizerOptions(schedule=["none"]),
    "step": OptimizerOptions(schedule=["step:step_size=3ep,gamma=0.5"]),
    "one cycle": OptimizerOptions(schedule=["onecycle:cycle_momentum=false"]),
    "warm-up": OptimizerOptions(schedule=["warmup:10% > cosine:eta_min=1e-5"]),
    "plateau": OptimizerOptions(schedule=["plateau:monitor=val_loss"]),
    "two": OptimizerOptions(schedule=["warmup:4st & plateau:monitor=val_loss"]),
    "groups": OptimizerOptions(no_decay="bias,norm"),
    "all": OptimizerOptions(
        optimizer=["adamw:lr=0.01,weight_decay=0.1"],
        schedule=["exponential:gamma=0.7"],
        no_decay="bias",
    ),
    "freeze": OptimizerOptions(freeze=["backbone"], lr="0.3"),
}
"""Changes of a block with one optimizer."""


# What the module does with a scheduler that the change takes away.
CONFLICTS = {
    ("own_statements_between", "no schedule"),
    ("own_statements_between", "two"),
}


def changes(spec: OptimSpec) -> dict[str, OptimizerOptions]:
    if not spec.labelled:
        return ONE
    other = [f"{each.label}=sgd:lr=0.5@{each.select}" for each in spec.optimizers]
    first, second = spec.optimizers
    return {
        "optimizers": OptimizerOptions(optimizer=other),
        "schedule": OptimizerOptions(schedule=["cosine"]),
        "no schedule": OptimizerOptions(schedule=["none"]),
        "one of two": OptimizerOptions(
            schedule=[f"{first.label}=step:step_size=3ep", f"{second.label}=none"]
        ),
    }


def adopted(root: Path, text: str) -> tuple[OptimizerBlock, ProjectState]:
    (root / "net.py").write_bytes(text.encode())
    found = adopt(root, plain_state(), root / "net.py", "Net", force=False)
    return found.block, recorded(plain_state(), found.block)


@pytest.mark.parametrize("name", NAMES)
def test_module_is_read_as_what_it_says(name: str, tmp_path: Path) -> None:
    wanted = case(name)
    block, _ = adopted(tmp_path, wanted.text)
    assert to_record(block.spec) == to_record(wanted.spec)
    assert observe(wanted.text) == observe(with_block(wanted.text, block.spec))
    assert (tmp_path / "net.py").read_text() == wanted.text


@pytest.mark.parametrize("name", NAMES)
def test_every_change_makes_what_it_says_and_keeps_what_is_the_users(
    name: str, tmp_path: Path
) -> None:
    given = case(name)
    block, state = adopted(tmp_path, given.text)
    applied = 0
    for change, options in changes(block.spec).items():
        try:
            spec = resolve(options, block.spec)
        except UsageError:
            continue  # an optimizer that this change does not suit
        result = plan(tmp_path, state, "", options)
        if (name, change) in CONFLICTS:
            assert result.outcome.conflicts
            assert result.after == given.text
            continue
        assert not result.outcome.conflicts, result.outcome.conflicts
        _check(given.text, result.after, spec)
        applied += 1
    assert applied >= 4


@pytest.mark.parametrize("above", [False, True], ids=["behind", "above"])
@pytest.mark.parametrize("name", NAMES)
def test_comment_at_every_line_survives_every_change(
    name: str, above: bool, tmp_path: Path
) -> None:
    given = case(name)
    text = commented(given.text, above=above)
    block, state = adopted(tmp_path, text)
    for change, options in changes(block.spec).items():
        try:
            spec = resolve(options, block.spec)
        except UsageError:
            continue
        if (name, change) in CONFLICTS:
            continue
        result = plan(tmp_path, state, "", options)
        assert not result.outcome.conflicts, result.outcome.conflicts
        assert comments(result.after) == comments(text)
        assert observe(result.after) == observe(with_block(given.text, spec))


@pytest.mark.parametrize("name", NAMES[::4])
def test_tabs_and_windows_lines_survive_every_change(name: str, tmp_path: Path) -> None:
    given = case(name)
    text = re.sub(
        r"^( {4})+", lambda m: "\t" * (len(m[0]) // 4), given.text, flags=re.MULTILINE
    )
    text = commented(text, above=True).replace("\n", "\r\n")
    block, state = adopted(tmp_path, text)
    for options in changes(block.spec).values():
        try:
            spec = resolve(options, block.spec)
        except UsageError:
            continue
        after = plan(tmp_path, state, "", options).after
        assert "\n" not in after.replace("\r\n", "")
        assert not re.search(r"^\t* +\S", after, re.MULTILINE)
        assert observe(after) == observe(with_block(given.text, spec))


@pytest.mark.parametrize("name", NAMES)
def test_changes_one_after_the_other_make_what_the_last_says(
    name: str, tmp_path: Path
) -> None:
    given = case(name)
    block, state = adopted(tmp_path, given.text)
    for change, options in changes(block.spec).items():
        try:
            spec = resolve(options, block.spec)
        except UsageError:
            continue
        if (name, change) in CONFLICTS:
            continue
        result = plan(tmp_path, state, "", options)
        assert not result.outcome.conflicts, result.outcome.conflicts
        _check(given.text, result.after, spec)
        block, state = result.block, recorded(state, result.block)
        (tmp_path / "net.py").write_text(result.after)
        again = plan(tmp_path, state, "", OptimizerOptions())
        assert not again.changes


def _check(before: str, after: str, spec: OptimSpec) -> None:
    assert observe(after) == observe(with_block(before, spec)), after
    assert comments(after) == comments(before)
    assert own_lines(after) == own_lines(before)


@pytest.mark.parametrize("name", NAMES)
def test_what_was_asked_for_already_changes_nothing(name: str, tmp_path: Path) -> None:
    text = case(name).text
    _, state = adopted(tmp_path, text)
    result = plan(tmp_path, state, "", OptimizerOptions())
    assert result.after == text
    assert not result.changes


@pytest.mark.parametrize("name", REFUSED)
def test_line_that_options_cannot_say_is_named(name: str, tmp_path: Path) -> None:
    text = (CASES / "refused" / f"{name}.py").read_text()
    wanted = remarks(text)
    assert wanted
    with pytest.raises(AdoptionError) as refusal:
        adopted(tmp_path, text)
    message = str(refusal.value)
    for line, reason in wanted:
        assert f"net.py:{line}: " in message
        said = message.partition(f"net.py:{line}: ")[2].partition("\n")[0]
        assert reason in said
    assert message.count("instead: ") == len(wanted)
