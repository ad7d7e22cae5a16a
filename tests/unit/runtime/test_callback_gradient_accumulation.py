"""`GradientAccumulationScheduler`: the schedule, what it refuses, resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import Interrupt
from small_runs import Small, loader, quiet, variant

from lightgen_runtime import Callback
from lightgen_runtime.callbacks import GradientAccumulationScheduler
from lightgen_runtime.utilities.exceptions import MisconfigurationException


class Seen(Callback):
    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        self.steps.append(trainer.global_step)


def fit(schedule: dict[int, int], resume: Path | None = None, epochs: int = 3) -> Any:
    seen = Seen()
    trainer = quiet(
        max_epochs=epochs, callbacks=[GradientAccumulationScheduler(schedule), seen]
    )
    module = Small()
    trainer.fit(module, loader(), ckpt_path=resume)
    return module, trainer, seen.steps


def test_epochs_follow_the_schedule() -> None:
    _, trainer, steps = fit({1: 2, 2: 4})
    assert steps == [1, 2, 3, 4, 4, 5, 5, 6, 6, 6, 6, 7]
    assert trainer.accumulate_grad_batches == 1


def test_estimate_of_steps_follows_the_schedule() -> None:
    seen: list[float] = []

    def configure_optimizers(self: Any) -> Any:
        seen.append(self.trainer.estimated_stepping_batches)
        return torch.optim.SGD(self.parameters(), lr=0.1)

    trainer = quiet(
        max_epochs=3, callbacks=[GradientAccumulationScheduler({1: 2, 2: 4})]
    )
    trainer.fit(variant(configure_optimizers=configure_optimizers), loader())
    assert seen == [trainer.global_step] == [7]


@pytest.mark.parametrize(
    ("hook", "occurrence"), [("on_train_batch_end", 5), ("on_train_batch_start", 5)]
)
def test_fit_resumed_inside_an_epoch_goes_on_with_its_number(
    hook: str, occurrence: int, tmp_path: Path
) -> None:
    schedule = GradientAccumulationScheduler({1: 2})
    saving = Interrupt(hook, occurrence, tmp_path / "a.ckpt")
    trainer = quiet(
        max_epochs=3, callbacks=[schedule, saving], enable_checkpointing=True
    )
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(Small(), loader())
    resumed, again, _ = fit({1: 2}, tmp_path / "a.ckpt")
    whole, once, _ = fit({1: 2})
    assert again.global_step == once.global_step == 8
    assert torch.equal(resumed.layer.weight, whole.layer.weight)


@pytest.mark.parametrize(
    "schedule", [{}, {-1: 2}, {0: 0}, {0.5: 2}, {0: True}, [1, 2]], ids=str
)
def test_schedule_that_makes_no_sense_is_refused(schedule: Any) -> None:
    with pytest.raises(MisconfigurationException, match="GradientAccumulationSchedul"):
        GradientAccumulationScheduler(schedule)


def test_flag_of_the_trainer_beside_it_is_refused() -> None:
    trainer = quiet(
        callbacks=[GradientAccumulationScheduler({0: 2})], accumulate_grad_batches=2
    )
    with pytest.raises(MisconfigurationException, match="remove one of the two"):
        trainer.fit(Small(), loader())


def test_manual_optimization_is_refused() -> None:
    module = Small()
    module.automatic_optimization = False
    trainer = quiet(callbacks=[GradientAccumulationScheduler({0: 2})])
    with pytest.raises(MisconfigurationException, match="manual optimization"):
        trainer.fit(module, loader())
