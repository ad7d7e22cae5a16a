"""The rows of docs/compat.md, and what `compat check` has to say of each.

A new row needs a rule in `lightgen_runtime/compat/running.py` or `keeping.py`, with an
example in `CONCERNED` of `compat_examples.py` and, if it can be wrong, one in
`NOT_CONCERNED` of `compat_counterexamples.py`. A row that no reading of code can find needs
its reason in `NO_RULE` instead, and a star in the page.
"""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "compat.md"


def rows_of_page() -> list[str]:
    """Return the rows of the page that state a difference."""
    section = PAGE.read_text(encoding="utf-8").partition("## Different on purpose")[2]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    return [row for row in rows if not row.startswith("| subject |")]


def named_in(row: str) -> list[str]:
    """Return the tests that a row names."""
    return re.findall(r"`(test_\w+)`", row)


_FAILS = "Lightning fails there: code that runs with it is not concerned"
_DISK = "only a full disk or the like shows it, and the fit warns"
_SIGNAL = "only a signal shows it, and the run says what it saves"
_COMPILED = "`torch.compile` is no name of Lightning's"
_LAUNCHER = "only whoever starts the processes shows it"
_DATA = "only the data show it, and the error says so at once"

NO_RULE = {
    "test_several_optimizers_by_hand": _FAILS,
    "test_step_of_several_loaders_without_their_number": _FAILS,
    "test_hyperparameter_of_a_checkpoint_that_is_no_argument": _FAILS,
    "test_resume_with_spike_detection": _FAILS,
    "test_second_fit_with_scheduled_accumulation": _FAILS,
    "test_training_data_that_end_earlier_in_one_process": _FAILS,
    "test_kinds_of_gathered_numbers": "only arithmetic that overflows shows it",
    "test_metrics_of_several_loaders_in_the_sanity_check": (
        "only the number of loaders shows it"
    ),
    "test_mode_after_an_error_in_validation": "shows in a module used on after an error",
    "test_names_of_compiled_parts_in_checkpoints": _COMPILED,
    "test_methods_of_a_compiled_module": _COMPILED,
    "test_damaged_weights": "only the file shows it",
    "test_epochs_of_a_file_before_1_6": "only the file shows it",
    "test_scheduler_state_that_replaces_a_method": "only the file shows it",
    "test_damaged_last_checkpoint": "only the file shows it, and the run warns",
    "test_fit_whose_checkpoints_cannot_be_saved": _DISK,
    "test_fit_whose_metrics_cannot_be_written": _DISK,
    "test_list_of_checkpoints_beside_them": (
        "shows to those who read the folder themselves, and not where they ask for *.ckpt"
    ),
    "test_checkpoint_of_a_terminated_fit": _SIGNAL,
    "test_checkpoint_of_a_fit_interrupted_by_ctrl_c": _SIGNAL,
    "test_requeued_job_that_had_no_time_to_save": (
        "only a job that is started again shows it, and the fit says so"
    ),
    "test_pods_of_kubeflow": _LAUNCHER,
    "test_started_processes_that_are_not_recognised": _LAUNCHER,
    "test_process_of_a_job_that_is_alone": _LAUNCHER,
    "test_devices_that_nobody_has_started": _LAUNCHER,
    "test_one_device_in_a_process_of_several": _LAUNCHER,
    "test_predictions_of_spawned_processes": _FAILS,
    "test_empty_training_loader": _DATA,
    "test_stream_without_a_batch": _DATA,
    "test_dataset_in_place_of_its_loader": "only the data show it, and the run warns",
}
