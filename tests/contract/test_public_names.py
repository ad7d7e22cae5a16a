"""The inventory of public names: complete, explained, and as `docs/compat` has it."""

from __future__ import annotations

import os
from collections.abc import Callable
from fnmatch import filter as filter_names
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path

import pytest
from compat_examples import uses_in_examples
from lightning.pytorch.strategies import StrategyRegistry
from names_page import counts, page, status_of
from public_names import Name, compare_arguments, public_names

from lightgen_runtime import Trainer
from lightgen_runtime.compat.behaviour import BEHAVIOUR
from lightgen_runtime.compat.check import check_path
from lightgen_runtime.compat.differences import GAPS, VALUES
from lightgen_runtime.compat.rules import Rule, rule_for
from lightgen_runtime.utilities.exceptions import LightgenRuntimeError

DOCS = Path(__file__).parents[2] / "docs"
BEGIN = "<!-- counts: written by `make golden` -->\n\n"
END = "\n<!-- end of counts -->\n"
# What the patterns of `VALUES` stand for.
REFUSED = [
    ("strategy", StrategyRegistry.available_strategies()),
    ("precision", ["transformer-engine", "16-mixed", "16-true"]),
    ("precision", ["bf16-mixed", "bf16-true", "64-true"]),
    ("accelerator", ["tpu"]),
    ("profiler", ["xla"]),
]
VALUE_KEYS = {
    f"Trainer({argument}={value!r})": {argument: value}
    for argument, values in REFUSED
    for value in values
}


@pytest.fixture(scope="module")
def names() -> list[Name]:
    return list(public_names())


def test_every_name_has_one_line(names: list[Name]) -> None:
    assert len(names) > 2000
    assert len({name.key for name in names}) == len(names)
    assert {status_of(name) for name in names} == {"same", "different", "absent"}


def test_every_difference_has_a_reason(names: list[Name]) -> None:
    unexplained = [
        f"{name.key} is {name.status} {name.finding}".strip()
        for name in names
        if name.status != "same" and rule_for(name.key, GAPS) is None
    ]
    assert not unexplained, "add to compat/differences.py:\n" + "\n".join(unexplained)


def test_every_reason_is_still_needed(names: list[Name]) -> None:
    gaps = [name.key for name in names if name.status != "same"]
    idle = [*_idle(GAPS, gaps), *_idle(VALUES, VALUE_KEYS)]
    assert not idle, "take out of compat/differences.py:\n" + "\n".join(idle)


def test_every_pattern_of_behaviour_fits_a_name_or_an_example(
    names: list[Name],
) -> None:
    uses = {name.key for name in names if name.status == "same"} | uses_in_examples()
    patterns = {
        pattern
        for rule in BEHAVIOUR
        for pattern in chain(rule.names, rule.not_with, *rule.only_with)
    }
    idle = [pattern for pattern in patterns if not filter_names(uses, pattern)]
    assert not idle, "take out of compat, or give an example:\n" + "\n".join(idle)


def _idle(rules: tuple[Rule, ...], keys: object) -> list[str]:
    """Patterns that decide about no key: there is none, or an earlier rule has it."""
    decided = [(key, rule_for(key, rules)) for key in keys]  # type: ignore[attr-defined]
    return [
        pattern
        for rule in rules
        for pattern in rule.names
        if not any(by is rule and fnmatchcase(key, pattern) for key, by in decided)
    ]


def theirs(a: int, b: int = 1, *, c: int = 2) -> None: ...
def keyword_only(a: int, *, b: int = 1, c: int = 2) -> None: ...
def other_order(b: int = 1, a: int = 0, *, c: int = 2) -> None: ...
def other_default(a: int, b: int = 2, *, c: int = 2) -> None: ...
def fewer(a: int, b: int = 1) -> None: ...
def more(a: int = 0, b: int = 1, more: int = 3, *, c: int = 2) -> None: ...
def any_keyword(a: int, b: int = 1, **kwargs: int) -> None: ...
def one_more(a: int, b: int = 1, *, c: int = 2, d: int) -> None: ...
def anything(*args: int, **kwargs: int) -> None: ...


@pytest.mark.parametrize(
    ("ours", "expected"),
    [
        (theirs, {}),
        (more, {}),
        (anything, {}),
        (keyword_only, {"f(b)": ("different", "at another position")}),
        (
            other_order,
            {
                "f(a)": ("different", "at another position"),
                "f(b)": ("different", "at another position"),
            },
        ),
        (other_default, {"f(b)": ("different", "`2`, not `1`")}),
        (fewer, {"f(c)": ("absent", "")}),
        (one_more, {"f(d)": ("different", "required, and new here")}),
        (any_keyword, {"f(c)": ("different", "by keyword only")}),
    ],
)
def test_signatures_are_compared_argument_by_argument(
    ours: Callable[..., None], expected: dict[str, tuple[str, str]]
) -> None:
    compared = list(compare_arguments("f", "", theirs, ours))
    assert [name.key for name in compared][:3] == ["f(a)", "f(b)", "f(c)"]
    found = {n.key: (n.status, n.finding) for n in compared if n.status != "same"}
    assert found == expected


def test_members_include_what_instances_are_given(names: list[Name]) -> None:
    keys = {name.key: name.status for name in names}
    assert keys["callbacks.EarlyStopping.wait_count"] == "same"
    assert keys["Trainer.fit"] == keys["LightningModule.training_step"] == "same"
    assert keys["utilities.types.STEP_OUTPUT"] == "same"
    assert keys["lightning.Fabric"] == "absent"
    private = [key for key in keys if "._" in key]
    assert private == ["lightning.__version__"]  # of an `__all__`


@pytest.mark.parametrize(
    "key", [key for key in VALUE_KEYS if rule_for(key, VALUES) is not None]
)
def test_value_that_is_called_absent_is_refused(key: str) -> None:
    with pytest.raises(LightgenRuntimeError):
        Trainer(logger=False, **VALUE_KEYS[key])


def test_scripts_that_run_use_nothing_that_is_absent() -> None:
    findings = list(check_path(Path(__file__).parent / "scripts"))
    assert [f"{f.path}:{f.line} {f.message}" for f in findings if not f.works] == []
    assert findings, "they do use what is different"


def test_page_is_as_generated(names: list[Name]) -> None:
    _compare(DOCS / "compat" / "names.md", page(names))


def test_summary_is_as_generated(names: list[Name]) -> None:
    path = DOCS / "compat.md"
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin
    assert end
    _compare(path, before + begin + counts(names) + end + after)


def _compare(path: Path, text: str) -> None:
    """Compare with the page, or write it where that is asked for."""
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text, "if it is meant: make golden"
