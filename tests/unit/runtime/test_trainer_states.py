"""The names for what a trainer is doing."""

from typing import Any

import pytest

from lightgen_runtime import LightningModule, Trainer
from lightgen_runtime.demos import BoringModel
from lightgen_runtime.trainer.states import (
    RunningStage,
    TrainerFn,
    TrainerState,
    TrainerStatus,
)
from lightgen_runtime.utilities import GradClipAlgorithmType


def test_members_are_their_values() -> None:
    assert TrainerFn.FITTING == "fit"
    assert {"fit": 1}[TrainerFn.FITTING] == 1
    assert f"{TrainerFn.FITTING}" == str(TrainerFn.FITTING) == "fit"


@pytest.mark.parametrize(
    ("value", "source"), [("fitting", "key"), ("FIT", "value"), ("fit", "any")]
)
def test_member_is_found_by_name_or_value(value: str, source: str) -> None:
    assert TrainerFn.from_str(value, source) is TrainerFn.FITTING


def test_unknown_member_is_refused_with_those_accepted() -> None:
    with pytest.raises(ValueError, match=r"accepted are VALUE \('value'\), NORM"):
        GradClipAlgorithmType.from_str("max")


def test_stage_says_what_it_evaluates() -> None:
    assert [stage for stage in RunningStage if stage.evaluating] == [
        *("sanity_check", "validate", "test")
    ]
    assert [stage.dataloader_prefix for stage in RunningStage] == [
        *("train", "val", "val", "test", "predict")
    ]


def test_trainer_goes_through_its_states() -> None:
    seen: list[Any] = []

    class Watching(BoringModel):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            seen.append(TrainerState(**vars(self.trainer.state)))
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            seen.append(self.trainer.state.stage)
            return super().validation_step(batch, batch_idx)

    trainer = Trainer(
        fast_dev_run=True, accelerator="cpu", logger=False, enable_progress_bar=False
    )
    assert trainer.state == TrainerState()
    trainer.fit(Watching())
    running = TrainerState(
        TrainerStatus.RUNNING, TrainerFn.FITTING, RunningStage.TRAINING
    )
    assert seen == [running, RunningStage.VALIDATING]
    assert isinstance(seen[1], RunningStage)
    assert trainer.state == TrainerState(TrainerStatus.FINISHED, TrainerFn.FITTING)
    assert trainer.state.finished
    assert trainer.state.stopped
    assert not running.stopped


def test_failed_run_is_interrupted() -> None:
    class Failing(BoringModel):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            raise KeyError("mine")

    trainer = Trainer(
        fast_dev_run=True, accelerator="cpu", logger=False, enable_progress_bar=False
    )
    with pytest.raises(KeyError, match="mine"):
        trainer.fit(Failing())
    assert trainer.state.status is TrainerStatus.INTERRUPTED
    assert trainer.state.stopped
    assert not trainer.state.finished
    assert isinstance(trainer.lightning_module, LightningModule)
