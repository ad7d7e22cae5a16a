"""What a person is told when `ckpt_path` means no file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_runs import Small, loader, quiet

from lightgen_runtime.callbacks import (
    Checkpoint,
    ModelCheckpoint,
    OnExceptionCheckpoint,
)
from lightgen_runtime.utilities.exceptions import (
    CheckpointNotFoundError,
    MisconfigurationException,
)


def with_checkpoints(folder: Path, **flags: Any) -> Any:
    callback = ModelCheckpoint(folder, **flags)
    return quiet(callbacks=callback, enable_checkpointing=None)


def test_fit_without_a_last_one_says_where_it_looked_and_what_keeps_one(
    tmp_path: Path,
) -> None:
    trainer = with_checkpoints(tmp_path / "here")
    with pytest.warns(UserWarning, match="begins anew") as caught:
        trainer.fit(Small(), loader(), ckpt_path="last")
    (message,) = [str(w.message) for w in caught if "last" in str(w.message)]
    for part in (str(tmp_path / "here"), "begins anew", "save_last=True"):
        assert part in message


def test_evaluation_never_falls_back_to_the_weights_at_hand(tmp_path: Path) -> None:
    trainer = with_checkpoints(tmp_path)
    with pytest.raises(CheckpointNotFoundError, match=r"last\*\.ckpt.*Give a path"):
        trainer.test(Small(), loader(), ckpt_path="last")


def test_own_newest_file_is_the_last_if_none_is_called_so(tmp_path: Path) -> None:
    trainer = with_checkpoints(tmp_path, save_top_k=-1)
    trainer.max_epochs = 2
    trainer.fit(Small(), loader())
    trainer.test(Small(), loader(), ckpt_path="last", verbose=False)
    assert trainer.ckpt_path == str(tmp_path / "epoch=1-step=8.ckpt")


def test_first_fit_with_an_exception_checkpoint_begins_quietly(tmp_path: Path) -> None:
    trainer = quiet(
        callbacks=OnExceptionCheckpoint(tmp_path), enable_checkpointing=None
    )
    trainer.fit(Small(), loader())
    assert (trainer.ckpt_path, trainer.global_step) == (None, 4)


def test_best_of_several_callbacks_is_the_firsts(tmp_path: Path) -> None:
    first = ModelCheckpoint(tmp_path / "a")
    second = ModelCheckpoint(tmp_path / "b", monitor="val_loss")
    trainer = quiet(callbacks=[first, second], enable_checkpointing=None)
    trainer.fit(Small(), loader(), loader(4))
    with pytest.warns(UserWarning, match="2 checkpoint callbacks"):
        trainer.test(Small(), loader(), ckpt_path="best", verbose=False)
    assert trainer.ckpt_path == first.best_model_path


def test_callback_of_the_programs_own_may_know_the_best(tmp_path: Path) -> None:
    class Own(Checkpoint):
        best_model_path = str(tmp_path / "mine.ckpt")

    trainer = quiet(callbacks=Own(), enable_checkpointing=None)
    trainer.fit(Small(), loader())
    trainer.save_checkpoint(Own.best_model_path)
    trainer.test(Small(), loader(), ckpt_path="best", verbose=False)
    assert trainer.ckpt_path == Own.best_model_path


def test_best_of_a_trial_run(tmp_path: Path) -> None:
    trainer = quiet(fast_dev_run=True, default_root_dir=tmp_path)
    with pytest.raises(CheckpointNotFoundError, match="trial run"):
        trainer.test(Small(), loader(), ckpt_path="best")


def test_model_registry_is_not_asked() -> None:
    with pytest.raises(MisconfigurationException, match=r"litmodels\.download_model"):
        quiet(model_registry="mine").test(Small(), loader(), ckpt_path="registry:mine")


def test_file_called_registry_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trainer = quiet()
    trainer.fit(Small(), loader())
    trainer.save_checkpoint("registry")
    trainer.test(Small(), loader(), ckpt_path="registry", verbose=False)
    assert trainer.ckpt_path == "registry"


def test_trial_run_begins_anew_even_after_an_exception(tmp_path: Path) -> None:
    trainer = quiet()
    trainer.fit(Small(), loader())
    trainer.save_checkpoint(tmp_path / "on_exception.ckpt")
    guard = OnExceptionCheckpoint(tmp_path)
    trial = quiet(fast_dev_run=True, callbacks=guard, enable_checkpointing=None)
    trial.fit(Small(), loader(), loader(4))
    assert (trial.ckpt_path, trial.global_step) == (None, 1)
