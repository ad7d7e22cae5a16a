"""Flags that are assigned or come from the environment, and the clock of validation."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest
import torch
from small_runs import Small, loader, quiet, variant

from lightgen_runtime import Trainer
from lightgen_runtime.loops import val_clock
from lightgen_runtime.loops.val_clock import ValidationClock
from lightgen_runtime.strategies import SingleDeviceStrategy
from lightgen_runtime.utilities.exceptions import MisconfigurationException

# ---- the environment ----


def test_what_the_environment_decides_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PL_TRAINER_MAX_STEPS", "7")
    with caplog.at_level(logging.INFO):
        assert quiet().max_steps == 7
    assert "PL_TRAINER_MAX_STEPS=7" in caplog.text


def test_variable_that_means_no_argument_is_named_with_the_nearest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PL_TRAINER_MAX_EPOCH", "7")
    with pytest.warns(UserWarning, match="MAX_EPOCH .*Did you mean .*MAX_EPOCHS"):
        assert Trainer(accelerator="cpu", logger=False).max_epochs == 1000


def test_bad_value_of_a_variable_is_refused_like_an_argument(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PL_TRAINER_MIN_EPOCHS", "many")
    with pytest.raises(MisconfigurationException, match="min_epochs='many'"):
        quiet()


def test_positional_arguments_are_still_refused() -> None:
    with pytest.raises(TypeError, match="without a name"):
        Trainer("cpu")  # type: ignore[misc]


# ---- assigned flags ----


@pytest.mark.parametrize(
    ("attribute", "value", "says"),
    [
        ("max_epochs", "3", "max_epochs='3'"),
        ("limit_val_batches", 1.5, "limit_val_batches=1.5"),
        ("check_val_every_n_epoch", 0, "check_val_every_n_epoch=0"),
        ("gradient_clip_algorithm", "nrom", "Did you mean 'norm'"),
        ("val_check_interval", "soon", "DD:HH:MM:SS"),
        ("num_sanity_val_steps", -2, "num_sanity_val_steps=-2"),
        ("accumulate_grad_batches", 0, "accumulate_grad_batches=0"),
        ("max_epochs", None, "assign a value"),
        ("limit_val_batches", None, "assign a value"),
    ],
)
def test_assigned_value_is_checked_like_an_argument(
    attribute: str, value: Any, says: str
) -> None:
    with pytest.raises(MisconfigurationException, match=says):
        setattr(quiet(), attribute, value)


def test_flags_without_a_limit_can_be_taken_back() -> None:
    trainer = quiet(min_epochs=3, gradient_clip_val=1.0, check_val_every_n_epoch=2)
    trainer.min_epochs = trainer.gradient_clip_val = None
    trainer.check_val_every_n_epoch = None
    assert (trainer.min_epochs, trainer.gradient_clip_val) == (None, None)
    trainer.fit(Small(), loader(), loader(4))
    assert "val_loss" in trainer.callback_metrics


def test_assigned_flags_take_effect_in_the_next_run() -> None:
    trainer, norms = quiet(), []

    def on_before_zero_grad(self: Any, optimizer: Any) -> None:
        if self.layer.weight.grad is not None:
            norms.append(max(p.grad.norm() for p in self.parameters()))

    trainer.gradient_clip_val = 1e-3
    trainer.gradient_clip_algorithm = "norm"
    trainer.num_sanity_val_steps = float("inf")
    assert trainer.num_sanity_val_steps == float("inf")
    trainer.fit(variant(on_before_zero_grad=on_before_zero_grad), loader())
    assert len(norms) == 3
    assert max(norms) < 1.1e-3


def test_steps_limited_while_training_end_the_fit_there() -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        self.trainer.max_steps = 2
        return self(batch).pow(2).mean()

    trainer = quiet()
    trainer.fit(variant(training_step=training_step), loader())
    assert trainer.global_step == 2


def test_accumulation_assigned_while_training_counts_from_the_next_epoch_on() -> None:
    losses: list[float] = []

    def on_train_batch_start(self: Any, batch: Any, batch_idx: int) -> None:
        self.trainer.accumulate_grad_batches = 4

    def on_before_backward(self: Any, loss: Any) -> None:
        losses.append(float(loss.detach()))

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        return 0.0 * self(batch).sum() + 12.0

    trainer = quiet(max_epochs=2, accumulate_grad_batches=2)
    trainer.fit(
        variant(
            on_train_batch_start=on_train_batch_start,
            on_before_backward=on_before_backward,
            training_step=training_step,
        ),
        loader(),
    )
    assert losses == [6.0] * 4 + [3.0] * 4
    assert trainer.global_step == 3


def test_clipping_assigned_while_training_counts_from_the_next_step_on() -> None:
    norms: list[float] = []

    def on_train_batch_start(self: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 1:
            self.trainer.gradient_clip_val = 1e-3
        if batch_idx == 3:
            self.trainer.gradient_clip_val = None

    def on_train_batch_end(self: Any, *_: Any) -> None:
        gradients = [p.grad.flatten() for p in self.parameters()]
        norms.append(float(torch.cat(gradients).norm()))

    quiet().fit(
        variant(
            on_train_batch_start=on_train_batch_start,
            on_train_batch_end=on_train_batch_end,
        ),
        loader(),
    )
    assert [norm < 1.1e-3 for norm in norms] == [False, True, True, False]


@pytest.mark.parametrize(
    ("first", "then", "validations"),
    [
        (timedelta(days=1), 2, [2, 4]),
        (timedelta(days=1), 1.0, [4]),
        (2, timedelta(microseconds=1), [1, 2, 3, 4]),
    ],
)
def test_validation_interval_assigned_while_training_counts_from_the_next_epoch_on(
    first: Any, then: Any, validations: list[int]
) -> None:
    seen: list[int] = []

    def on_train_epoch_end(self: Any) -> None:
        self.trainer.val_check_interval = then

    def on_validation_start(self: Any) -> None:
        if self.current_epoch == 1:
            seen.append(self.trainer.fit_loop.total_batch_idx + 1 - 4)

    module = variant(
        on_train_epoch_end=on_train_epoch_end, on_validation_start=on_validation_start
    )
    quiet(max_epochs=2, val_check_interval=first, num_sanity_val_steps=0).fit(
        module, loader(), loader(4)
    )
    assert seen == validations


def test_barebones_is_told_of() -> None:
    assert Trainer(barebones=True, accelerator="cpu").barebones


def test_trial_run_says_what_it_leaves_out(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        quiet(fast_dev_run=2)
    assert "2 batch(es) of everything" in caplog.text
    assert "no checkpoints" in caplog.text


@pytest.mark.parametrize(
    ("precision", "dtype"), [("64-true", torch.float64), ("bf16-true", torch.bfloat16)]
)
def test_module_is_made_in_the_type_of_the_precision(
    precision: str, dtype: torch.dtype
) -> None:
    trainer = quiet(precision=precision)
    with trainer.init_module():
        assert torch.nn.Linear(1, 1).weight.dtype == dtype
    assert torch.get_default_dtype() == torch.float32


# ---- the clock of validation ----


def looks(
    seconds: float, batch_seconds: list[float], monkeypatch: pytest.MonkeyPatch
) -> tuple[list[int], list[int]]:
    """Return the batches after which the clock was read, and those it was due after."""
    now, read, due = 0.0, [], []

    def monotonic() -> float:
        read.append(batch)
        return now

    batch = 0
    monkeypatch.setattr(val_clock, "monotonic", monotonic)
    clock = ValidationClock(timedelta(seconds=seconds), SingleDeviceStrategy(), 0)
    for batch, lasts in enumerate(batch_seconds, start=1):
        now += lasts
        if clock.due(batch):
            due.append(batch)
            clock.restart(batch)
    return read, due


def test_clock_is_read_less_often_the_more_time_remains(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read, due = looks(1000.0, [1.0] * 1000, monkeypatch)
    assert due == [1000]
    assert len(read) < 30


def test_clock_is_read_within_a_hundred_batches_whatever_the_pace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The first batches are quick, the others so slow that each is longer than the rest.
    _, due = looks(1e4, [1e-3] * 10 + [1e4] * 200, monkeypatch)
    assert due[0] <= 10 + 101


def test_clock_that_stands_still_is_read_after_each_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read, due = looks(1.0, [0.0] * 5, monkeypatch)
    assert (read, due) == ([0, 1, 2, 3, 4, 5], [])


def test_first_process_decides_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []

    class OfMany(SingleDeviceStrategy):
        def broadcast(self, value: Any, src: int = 0) -> Any:
            said.append(value)
            return (len(said) == 2, 4)  # whatever this process would have said

    monkeypatch.setattr(val_clock, "monotonic", lambda: 0.0)
    clock = ValidationClock(timedelta(seconds=9), OfMany(), 0)
    due = [batch for batch in range(1, 12) if clock.due(batch)]
    assert due == [5]
    assert len(said) == 3  # after batches 1, 5 and 9
