"""`OnExceptionCheckpoint`: when the file is written, kept and removed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_runs import Small, loader, quiet, variant

from lightgen_runtime import Trainer
from lightgen_runtime.callbacks import OnExceptionCheckpoint
from lightgen_runtime.utilities.exceptions import MisconfigurationException


def failing(at: int) -> Small:
    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.trainer.global_step == at:
            raise ZeroDivisionError
        return self(batch).pow(2).mean()

    return variant(training_step=training_step)


def trainer_in(folder: Path, **flags: Any) -> Trainer:
    callbacks = [OnExceptionCheckpoint(folder)]
    return quiet(callbacks=callbacks, enable_checkpointing=True, **flags)


def test_failed_fit_can_go_on(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        trainer_in(tmp_path).fit(failing(2), loader())
    path = tmp_path / "on_exception.ckpt"
    resumed = trainer_in(tmp_path)
    resumed.fit(Small(), loader(), ckpt_path=path)
    assert resumed.global_step == 4
    assert not path.exists()


def test_interrupted_fit_is_saved_too(tmp_path: Path) -> None:
    def on_train_start(self: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer_in(tmp_path).fit(variant(on_train_start=on_train_start), loader())
    assert (tmp_path / "on_exception.ckpt").exists()


def test_evaluation_neither_writes_nor_removes_the_file(tmp_path: Path) -> None:
    def test_step(self: Any, batch: Any, batch_idx: int) -> None:
        raise ZeroDivisionError

    path = tmp_path / "on_exception.ckpt"
    with pytest.raises(ZeroDivisionError):
        trainer_in(tmp_path).test(variant(test_step=test_step), loader())
    assert not path.exists()
    with pytest.raises(ZeroDivisionError):
        trainer_in(tmp_path).fit(failing(2), loader())
    trainer_in(tmp_path).validate(Small(), loader(), ckpt_path=path, verbose=False)
    assert path.exists()


def test_trial_run_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        trainer_in(tmp_path, fast_dev_run=True).fit(failing(0), loader())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flags", [{"fast_dev_run": True}, {"max_epochs": 0}])
def test_fit_that_trains_nothing_leaves_the_file(
    tmp_path: Path, flags: dict[str, Any]
) -> None:
    with pytest.raises(ZeroDivisionError):
        trainer_in(tmp_path).fit(failing(2), loader())
    path = tmp_path / "on_exception.ckpt"
    trainer_in(tmp_path, **flags).fit(Small(), loader(), ckpt_path=path)
    assert path.exists()


def test_file_needs_a_name() -> None:
    with pytest.raises(MisconfigurationException, match="needs a name"):
        OnExceptionCheckpoint("folder", "")
