"""From options to specifications: what is said changes, what is not stays."""

from __future__ import annotations

import pytest

from lightgen.errors import UsageError
from lightgen.optim.options import OptimizerOptions, as_options, resolve
from lightgen.optim.recipes import RECIPES
from lightgen.optim.spec import from_record, to_record

TWO = ["g=adam@generator", "d=adam@discriminator"]


def test_schedule_with_a_label_leaves_the_others_alone() -> None:
    options = OptimizerOptions(optimizer=TWO, schedule=["g=cosine"])
    spec = resolve(options, None)
    spec = resolve(OptimizerOptions(schedule=["d=step:step_size=3ep"]), spec)
    assert to_record(spec)["schedule"] == {"g": "cosine", "d": "step:step_size=3ep"}


def test_schedule_without_a_label_is_for_all() -> None:
    options = OptimizerOptions(optimizer=TWO, schedule=["g=cosine"])
    spec = resolve(OptimizerOptions(schedule=["onecycle"]), resolve(options, None))
    assert to_record(spec)["schedule"] == {"": "onecycle"}


def test_selector_of_a_scale_may_hold_an_equals_sign() -> None:
    spec = resolve(OptimizerOptions(lr_scale=["ndim>=2=0.5"]), None)
    assert spec.groups.lr_scale == (("ndim>=2", 0.5),)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_can_be_said_in_options_and_read_back(name: str) -> None:
    spec = from_record(RECIPES[name].record)
    assert from_record(to_record(spec)) == spec
    words = as_options(spec)
    assert set(words[::2]) <= {"--optimizer", "--schedule", "--no-decay"}


@pytest.mark.parametrize("bad", ['a"b', "a\nb", "a,b", ""])
def test_name_that_would_break_record_or_code_is_refused(bad: str) -> None:
    options = OptimizerOptions(schedule=["plateau"], monitor=bad)
    with pytest.raises(UsageError) as caught:
        resolve(options, None)
    assert "--monitor" in caught.value.where
