"""What surrounds a run: hooks in any form, errors, clean-up, a second run."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from small_runs import Small, fitted, loader, quiet, variant

from lightgen_runtime import Callback, LightningDataModule, Trainer
from lightgen_runtime.callbacks import EarlyStopping, ModelCheckpoint
from lightgen_runtime.loggers import CSVLogger
from lightgen_runtime.utilities.exceptions import MisconfigurationException


class Mistake(Exception):
    """The user's own."""


def failing(*args: Any, **kwargs: Any) -> Any:
    raise Mistake("mine")


class Witness(Callback):
    """Notes what is called when a run ends."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.error: BaseException | None = None

    def on_exception(self, trainer: Any, pl_module: Any, exception: Any) -> None:
        self.calls.append("on_exception")
        self.error = exception

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.calls.append("on_train_end")

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.calls.append(f"teardown {stage}")


# ---- errors ----

PLACES = [
    "prepare_data",
    "setup",
    "configure_optimizers",
    "on_fit_start",
    "train_dataloader",
    "on_train_start",
    "training_step",
    "on_after_backward",
    "validation_step",
    "on_validation_epoch_end",
    "on_train_epoch_end",
    "on_train_end",
    "on_fit_end",
]


@pytest.mark.parametrize("place", PLACES)
def test_users_error_propagates_unchanged_and_all_is_torn_down(place: str) -> None:
    witness = Witness()
    module = variant(
        **{"train_dataloader": lambda self: loader(), place: failing},
        teardown=lambda self, stage: witness.calls.append(f"module {stage}"),
    )
    trainer = quiet(callbacks=witness)
    with pytest.raises(Mistake, match=r"^mine$") as caught:
        trainer.fit(module, val_dataloaders=loader(4))
    assert witness.error is caught.value
    assert caught.value.__cause__ is None
    ended = ["on_train_end"] if place == "on_fit_end" else []
    assert [c for c in witness.calls if c != "on_train_end"] == [
        "on_exception",
        "teardown fit",
        "module fit",
    ]
    assert set(ended) <= set(witness.calls)
    assert trainer.interrupted
    assert trainer.state.status == "interrupted"


def notes(error: BaseException) -> str:
    return "\n".join(getattr(error, "__notes__", []))


def test_errors_in_clean_up_are_attached_and_stop_nothing(tmp_path: Path) -> None:
    class Careless(Witness):
        def on_exception(self, *args: Any) -> None:
            super().on_exception(*args)
            raise OSError("in on_exception")

        def teardown(self, *args: Any, **kwargs: Any) -> None:
            super().teardown(*args, **kwargs)
            raise ValueError("in teardown")

    first, second = Careless(), Careless()
    logger = CSVLogger(tmp_path)
    logger.finalize = Mock()  # type: ignore[method-assign]
    module = variant(training_step=failing, teardown=Mock())
    with pytest.raises(Mistake, match=r"^mine") as caught:
        quiet(callbacks=[first, second], logger=logger).fit(module, loader())
    assert first.calls == second.calls == ["on_exception", "teardown fit"]
    module.teardown.assert_called_once_with(stage="fit")
    logger.finalize.assert_called_once_with("failed")
    assert notes(caught.value).count("OSError: in on_exception") == 2
    assert notes(caught.value).count("ValueError: in teardown") == 2


def test_error_in_teardown_of_a_good_run_is_raised_after_the_rest() -> None:
    witness = Witness()
    failing_first = Callback()
    failing_first.teardown = failing  # type: ignore[method-assign]
    with pytest.raises(Mistake):
        fitted(Small(), callbacks=[failing_first, witness])
    assert witness.calls == ["on_train_end", "teardown fit"]


def test_interrupt_by_the_keyboard_is_passed_on() -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        raise KeyboardInterrupt

    witness = Witness()
    trainer = quiet(callbacks=witness)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(variant(training_step=training_step), loader())
    assert witness.calls == ["on_exception", "teardown fit"]
    assert trainer.interrupted


def test_error_while_evaluating_leaves_the_module_as_it_was() -> None:
    module = variant(validation_step=failing)
    module.frozen = torch.nn.BatchNorm1d(4).eval()
    with pytest.raises(Mistake):
        fitted(module)
    assert module.training
    assert module.layer.training
    assert not module.frozen.training


def test_datamodule_is_told_and_torn_down() -> None:
    class Data(LightningDataModule):
        on_exception = Mock()
        teardown = Mock()

        def train_dataloader(self) -> Any:
            return loader()

    data = Data()
    with pytest.raises(Mistake):
        quiet().fit(variant(training_step=failing), datamodule=data)
    data.on_exception.assert_called_once()
    data.teardown.assert_called_once_with(stage="fit")


# ---- the same trainer again ----


def test_fit_after_an_interrupted_fit_begins_its_epoch_anew() -> None:
    seen: list[int] = []

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        seen.append(batch_idx)
        if len(seen) == 3:
            raise Mistake
        return self(batch).mean()

    module = variant(training_step=training_step)
    trainer = quiet()
    with pytest.raises(Mistake):
        trainer.fit(module, loader())
    trainer.fit(module, loader())
    assert seen == [0, 1, 2, 0, 1, 2, 3]
    assert not trainer.interrupted


def test_finished_fit_has_nothing_more_to_do() -> None:
    module = variant(on_train_start=Mock(), on_train_end=Mock())
    trainer = fitted(module)
    trainer.fit(module, loader())
    assert (trainer.current_epoch, trainer.global_step) == (1, 4)
    module.on_train_start.assert_called_once()
    module.on_train_end.assert_called_once()


def test_request_to_stop_ends_with_its_fit() -> None:
    trainer = quiet(max_epochs=2)
    trainer.should_stop = True
    trainer.fit(Small(), loader())
    assert trainer.global_step == 8


def test_every_stage_may_follow_every_other() -> None:
    model = Small()
    trainer = quiet()
    trainer.test(model, loader(), verbose=False)
    trainer.fit(model, loader(), loader(4))
    trainer.predict(model, loader())
    trainer.validate(model, loader(), verbose=False)
    assert (trainer.current_epoch, trainer.global_step) == (1, 4)
    assert trainer.state.fn == "validate"


def test_last_model_and_its_best_checkpoint_are_taken_by_default(
    tmp_path: Path,
) -> None:
    model = variant(train_dataloader=lambda self: loader())
    callback = ModelCheckpoint(tmp_path)
    trainer = quiet(callbacks=callback, enable_checkpointing=None)
    trainer.fit(model)
    trained = model.layer.weight.detach().clone()
    with torch.no_grad():
        model.layer.weight.zero_()
    trainer.test(dataloaders=loader(), verbose=False)
    assert trainer.ckpt_path == callback.best_model_path
    assert torch.equal(model.layer.weight, trained)


# ---- should_stop ----

HOOKS = {
    "on_fit_start": 0,
    "on_sanity_check_end": 0,
    "on_train_start": 0,
    "on_train_epoch_start": 0,
    "on_train_batch_start": 1,
    "on_before_backward": 1,
    "on_before_optimizer_step": 1,
    "on_train_batch_end": 1,
    "on_validation_epoch_end": 4,
    "on_train_epoch_end": 4,
}


@pytest.mark.parametrize("hook", HOOKS)
def test_any_hook_may_ask_to_stop(hook: str) -> None:
    callback = Callback()

    def stop(trainer: Trainer, *args: Any) -> None:
        if not trainer.sanity_checking or hook == "on_sanity_check_end":
            trainer.should_stop = True

    setattr(callback, hook, stop)
    trainer = fitted(Small(), max_epochs=5, callbacks=callback)
    assert trainer.global_step == HOOKS[hook]


# ---- who listens ----


def test_mock_on_an_instance_is_a_hook() -> None:
    module, callback = Small(), Callback()
    module.on_train_epoch_end = Mock()  # type: ignore[method-assign]
    callback.on_train_batch_end = Mock()  # type: ignore[method-assign]
    fitted(module, callbacks=callback)
    module.on_train_epoch_end.assert_called_once_with()
    assert callback.on_train_batch_end.call_count == 4


def test_function_on_an_instance_is_a_step() -> None:
    module = Small()
    seen = []

    def training_step(batch: Any, batch_idx: int) -> Any:
        seen.append(batch_idx)
        return module(batch).mean()

    module.training_step = training_step  # type: ignore[method-assign]
    fitted(module)
    assert seen == [0, 1, 2, 3]


def test_callback_added_in_setup_takes_part() -> None:
    late = Witness()

    class Adding(Callback):
        def setup(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
            trainer.callbacks.append(late)

    fitted(Small(), callbacks=Adding())
    assert late.calls == ["on_train_end", "teardown fit"]


def test_callback_added_within_an_epoch_listens_from_the_next() -> None:
    late = Callback()
    late.on_train_batch_end = Mock()  # type: ignore[method-assign]

    class Adding(Callback):
        def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
            if late not in trainer.callbacks:
                trainer.callbacks.append(late)

    fitted(Small(), callbacks=Adding(), max_epochs=2)
    assert late.on_train_batch_end.call_count == 4


def test_modules_callback_replaces_the_trainers_of_its_type() -> None:
    of_trainer, of_module = EarlyStopping("val_loss"), EarlyStopping("other")
    witness = Witness()
    trainer = quiet(callbacks=[of_trainer, witness])
    module = variant(
        configure_callbacks=lambda self: of_module,
        on_validation_epoch_end=lambda self: self.log("other", 1.0),
    )
    trainer.fit(module, loader(), loader(4))
    assert trainer.early_stopping_callbacks == [of_module]
    assert witness in trainer.callbacks


def test_checkpoint_callbacks_run_last(tmp_path: Path) -> None:
    other, checkpoint = Witness(), ModelCheckpoint(tmp_path)
    trainer = quiet(callbacks=[checkpoint, other], enable_checkpointing=None)
    assert trainer.callbacks == [other, checkpoint]


def test_nested_module_knows_the_trainer() -> None:
    module = Small()
    module.inner = Small()
    seen = []

    def on_train_epoch_end() -> None:
        seen.append(
            (module.inner.trainer is module.trainer, module.inner.current_epoch)
        )

    module.on_train_epoch_end = on_train_epoch_end  # type: ignore[method-assign]
    fitted(module, max_epochs=2)
    assert seen == [(True, 0), (True, 1)]


def test_described_hooks_name_who_listens() -> None:
    trainer = fitted(variant(on_train_start=lambda self: None), callbacks=Witness())
    (line,) = [x for x in trainer.describe_hooks().splitlines() if "on_train_end " in x]
    assert line.split()[-1] == "Witness"


# ---- what is left behind ----


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_fast_dev_run_leaves_no_files(folder: Path) -> None:
    trainer = Trainer(
        accelerator="cpu",
        fast_dev_run=2,
        callbacks=[ModelCheckpoint(save_last=True), EarlyStopping("never logged")],
    )
    trainer.fit(Small(), loader(), loader())
    trainer.test(Small(), loader(), verbose=False)
    assert trainer.global_step == 2
    assert list(folder.iterdir()) == []


def test_default_run_writes_under_the_root_folder_only(folder: Path) -> None:
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        default_root_dir=folder / "root",
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(variant(training_step=log_and_train), loader(), loader(4))
    assert [entry.name for entry in folder.iterdir()] == ["root"]
    assert trainer.log_dir is not None
    assert (Path(trainer.log_dir) / "metrics.csv").is_file()
    assert Path(trainer.checkpoint_callback.best_model_path).is_file()  # type: ignore


def log_and_train(self: Any, batch: Any, batch_idx: int) -> Any:
    loss = self(batch).pow(2).mean()
    self.log("loss", loss)
    return loss


def test_home_folder_is_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert quiet(default_root_dir="~/runs").default_root_dir == str(tmp_path / "runs")


def test_evaluation_prints_its_results(capsys: pytest.CaptureFixture[str]) -> None:
    results = quiet().test(Small(), loader())
    assert f"{results[0]['test_loss']:.4f}" in capsys.readouterr().out


def test_bad_callbacks_of_a_module_are_refused() -> None:
    module = variant(configure_callbacks=lambda self: [5])
    with pytest.raises(MisconfigurationException, match="configure_callbacks"):
        fitted(module)
