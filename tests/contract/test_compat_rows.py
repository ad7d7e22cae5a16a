"""`compat check` against docs/compat.md: each row has a rule that works, or a reason."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from compat_counterexamples import NOT_CONCERNED
from compat_examples import CONCERNED, IMPORTS, WITHOUT_ROW
from compat_rows import NO_RULE, named_in, rows_of_page

from lightgen_runtime.compat.behaviour import BEHAVIOUR, Behaviour
from lightgen_runtime.compat.check import check_path

ON_PAGE = {test: row for row in rows_of_page() for test in named_in(row)}
RULED = [row for rule in BEHAVIOUR for row in rule.rows]

SCRIPTS = Path(__file__).parent / "scripts"
# All that is said of the scripts, each of which does something else that people do.
SAID_OF_SCRIPTS = {
    "accumulation_and_clipping": {"test_short_accumulation_window"},
    "averaged_weights": {
        "test_short_accumulation_window",
        "test_step_after_the_averaged_weights",
    },
    "callback_state_in_test": {"test_state_of_callbacks_after_evaluating_a_checkpoint"},
    "checkpoint_ensemble": {
        "test_last_checkpoint_is_the_newest",
        "test_state_of_callbacks_after_evaluating_a_checkpoint",
    },
    "combined_loader_modes": {"test_numbers_of_batches_before_the_first_validation"},
    "command_line": {
        "test_abbreviated_options",
        "test_class_that_a_checkpoint_puts_in_place_of_the_chosen_one",
    },
    "datamodule_stages": {
        "test_resume_inside_an_epoch",
        "test_teardown_after_an_error",
    },
    "ema_callback": {
        "test_hook_before_a_file_is_written",
        "test_resume_inside_an_epoch",
    },
    "gradient_norm_logging": {"test_short_accumulation_window"},
    "growing_batches": {"test_opening_of_a_reloaded_loader"},
    "growing_curriculum": {"test_opening_of_a_reloaded_loader"},
    "iterable_dataset": {
        "test_limit_beyond_the_end_of_an_iterable_loader",
        "test_short_accumulation_window",
    },
    "knowledge_distillation": {"test_hook_before_a_file_is_written"},
    "learning_rate_search": {"test_scaling_returns_only_sizes_that_fit"},
    "more_epochs": {"test_resume_inside_an_epoch"},
    "one_cycle_warmup": {"test_short_accumulation_window"},
    "own_progress_bars": {
        "test_epochs_in_the_progress_bar",
        "test_stream_of_the_tqdm_bar",
    },
    "quantile_regression": {"test_last_checkpoint_is_the_newest"},
    "rates_per_group": {"test_short_accumulation_window"},
    "resume_from_checkpoint": {
        "test_files_from_behind_the_point_of_resuming",
        "test_hook_before_a_file_is_written",
        "test_last_checkpoint_is_the_newest",
        "test_resume_inside_an_epoch",
        "test_schedule_of_a_prolonged_run",
    },
    "several_val_loaders": {
        "test_numbers_of_batches_after_another_entry_point",
        "test_numbers_of_batches_before_the_first_validation",
    },
    "stateful_callback": {
        "test_hook_before_a_file_is_written",
        "test_resume_inside_an_epoch",
    },
    "teacher_forcing": {"test_hook_before_a_file_is_written"},
    "topk_and_early_stopping": {
        "test_last_checkpoint_is_the_newest",
        "test_state_of_callbacks_after_evaluating_a_checkpoint",
    },
}


def rules_met(code: str, folder: Path) -> set[Behaviour]:
    """Return the rules of which the check says something."""
    (folder / "code.py").write_text(IMPORTS + code)
    said = [finding.message for finding in check_path(folder)]
    return {rule for rule in BEHAVIOUR if any(s.endswith(rule.text) for s in said)}


def test_every_row_has_a_rule_or_a_reason() -> None:
    missing = ON_PAGE.keys() - {*RULED, *NO_RULE}
    assert not missing, (
        "`compat check` says nothing of these rows of docs/compat.md; see the docstring of "
        f"compat_rows.py: {sorted(missing)}"
    )


def test_no_row_has_a_rule_and_a_reason_or_two_rules() -> None:
    twice = [row for row, n in Counter([*RULED, *NO_RULE]).items() if n > 1]
    assert not twice


def test_rules_and_reasons_are_of_rows_that_exist() -> None:
    stale = {*RULED, *NO_RULE} - ON_PAGE.keys()
    assert not stale, f"docs/compat.md has no such row: {sorted(stale)}"


def test_page_marks_the_rows_without_a_rule() -> None:
    marked = {test for test, row in ON_PAGE.items() if f"`{test}` *" in row}
    assert marked == NO_RULE.keys(), "a star behind the test marks a row of NO_RULE"


def test_every_rule_has_an_example() -> None:
    assert {row for row, _ in CONCERNED} == set(RULED)
    for rule in BEHAVIOUR:
        if not rule.rows:
            assert any(rule.why.startswith(why) for why, _ in WITHOUT_ROW), rule.why


@pytest.mark.parametrize(("row", "code"), CONCERNED)
def test_code_that_a_row_concerns_is_found(row: str, code: str, tmp_path: Path) -> None:
    assert any(row in rule.rows for rule in rules_met(code, tmp_path))


@pytest.mark.parametrize(("row", "code"), NOT_CONCERNED)
def test_code_that_no_row_concerns_is_left_alone(
    row: str, code: str, tmp_path: Path
) -> None:
    assert not any(row in rule.rows for rule in rules_met(code, tmp_path))


@pytest.mark.parametrize(("why", "code"), WITHOUT_ROW)
def test_code_that_a_rule_without_row_concerns_is_found(
    why: str, code: str, tmp_path: Path
) -> None:
    assert any(rule.why.startswith(why) for rule in rules_met(code, tmp_path))


def test_scripts_get_no_false_alarm() -> None:
    said: dict[str, set[str]] = {}
    for finding in check_path(SCRIPTS):
        (rule,) = (r for r in BEHAVIOUR if finding.message.endswith(r.text))
        said.setdefault(finding.path.stem, set()).add(rule.rows[0])
    assert said == SAID_OF_SCRIPTS
