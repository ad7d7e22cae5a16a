"""Files of older versions are brought to what this one reads."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from lightgen_runtime.io.migrations import MIGRATIONS, migrated
from lightgen_runtime.io.schema import OWN_FORMAT, progress_from_loops


def test_every_older_format_has_its_step() -> None:
    assert sorted(MIGRATIONS) == list(range(1, OWN_FORMAT))


def test_steps_are_taken_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(name: str) -> Any:
        return lambda own: {**own, "taken": [*own.get("taken", []), name]}

    for former in MIGRATIONS:
        monkeypatch.setitem(MIGRATIONS, former, step(f"from {former}"))
    checkpoint = {"state_dict": {}, "lightgen": {"format": 1}}
    before = copy.deepcopy(checkpoint)
    own = migrated(checkpoint)["lightgen"]
    assert own["format"] == OWN_FORMAT
    assert own["taken"] == [f"from {former}" for former in range(1, OWN_FORMAT)]
    assert checkpoint == before


@pytest.mark.parametrize("number", [OWN_FORMAT, OWN_FORMAT + 1])
def test_newer_formats_are_left_alone(number: int) -> None:
    checkpoint = {"state_dict": {}, "lightgen": {"format": number, "progress": {}}}
    assert migrated(checkpoint) == checkpoint


def lightning(version: str, **entries: Any) -> dict[str, Any]:
    return {"pytorch-lightning_version": version, "epoch": 3, **entries}


@pytest.mark.parametrize(
    ("version", "epochs"), [("1.4.9", 3), ("1.5.10", 3), ("1.6.0", 4), ("2.6.0", 4)]
)
def test_epochs_of_a_file_without_counters(version: str, epochs: int) -> None:
    # Up to 1.5, `epoch` said how many were complete; from 1.6 on, which one runs.
    checkpoint = migrated(lightning(version, global_step=12))
    progress = progress_from_loops(checkpoint)
    assert (progress["current_epoch"], progress["global_step"]) == (epochs, 12)


@pytest.mark.parametrize("moment", ["None", "True", "False"])
def test_former_key_of_a_model_checkpoint(moment: str) -> None:
    key = "ModelCheckpoint{'monitor': 'x', 'train_time_interval': None"
    others = {"EarlyStopping{'monitor': 'x', 'mode': 'min'}": {"a": 1}}
    former = {f"{key}, 'save_on_train_epoch_end': {moment}}}": {"b": 2}, **others}
    found = migrated(lightning("1.8.6", callbacks=former))["callbacks"]
    assert found == {f"{key}}}": {"b": 2}, **others}


def test_version_that_cannot_be_read_is_taken_for_a_new_one() -> None:
    checkpoint = {**lightning("?"), "callbacks": {}}
    assert migrated(checkpoint) == checkpoint
