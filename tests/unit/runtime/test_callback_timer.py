"""`Timer`: durations, measuring, stopping, resuming. The clock is the test's own."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from small_runs import Small, fitted, loader, quiet

from lightgen_runtime import Callback
from lightgen_runtime.callbacks import Timer, timer
from lightgen_runtime.utilities.exceptions import MisconfigurationException


class Clock:
    """A second passes with each batch."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Passing(Callback):
    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_batch_start(self, *args: Any) -> None:
        self.clock.now += 1.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(timer, "monotonic", made)
    return made


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        ("00:00:00:03", 3),
        ("01:02:03:04", 93784),
        (timedelta(minutes=2), 120),
        ({"hours": 1, "minutes": 1}, 3660),
        (None, None),
    ],
)
def test_duration_in_every_form(duration: Any, seconds: float | None) -> None:
    assert Timer(duration).time_remaining() == seconds


@pytest.mark.parametrize("duration", ["12:00", "1d", 5, {"hour": 1}])
def test_other_duration_is_refused(duration: Any) -> None:
    with pytest.raises(MisconfigurationException, match="DD:HH:MM:SS"):
        Timer(duration)


def test_other_interval_is_refused() -> None:
    with pytest.raises(MisconfigurationException, match="'step' and 'epoch'"):
        Timer(interval="batch")


@pytest.mark.parametrize(("interval", "steps"), [("step", 6), ("epoch", 8)])
def test_fit_stops_when_the_time_is_over(
    interval: str, steps: int, clock: Clock
) -> None:
    stopwatch = Timer({"seconds": 6}, interval=interval)
    trainer = fitted(Small(), callbacks=[stopwatch, Passing(clock)], max_epochs=5)
    assert trainer.global_step == steps
    assert stopwatch.time_elapsed() == steps
    assert stopwatch.time_remaining() == 6 - steps


def test_stages_are_measured_apart(clock: Clock) -> None:
    class Slow(Callback):
        def on_validation_batch_end(self, *args: Any) -> None:
            clock.now += 10.0

    stopwatch = Timer()
    trainer = fitted(
        Small(),
        callbacks=[stopwatch, Passing(clock), Slow()],
        num_sanity_val_steps=0,
    )
    assert trainer.global_step == 4
    assert stopwatch.time_elapsed("validate") == 20.0
    assert stopwatch.time_elapsed("train") == 24.0
    assert stopwatch.time_elapsed("test") == 0.0
    assert stopwatch.time_remaining() is None


def test_time_before_a_checkpoint_counts(clock: Clock, tmp_path: Path) -> None:
    trainer = fitted(Small(), callbacks=[Timer({"seconds": 6}), Passing(clock)])
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    clock.now += 1000.0
    stopwatch = Timer({"seconds": 6})
    resumed = quiet(callbacks=[stopwatch, Passing(clock)], max_epochs=9)
    resumed.fit(Small(), loader(), ckpt_path=tmp_path / "a.ckpt")
    assert resumed.global_step == 6
    assert stopwatch.time_elapsed() == 6.0
    resumed.save_checkpoint(tmp_path / "b.ckpt")
    over = quiet(callbacks=[Timer({"seconds": 6}), Passing(clock)], max_epochs=9)
    over.fit(Small(), loader(), ckpt_path=tmp_path / "b.ckpt")
    assert over.global_step == 6


def test_second_fit_has_the_whole_time(clock: Clock) -> None:
    trainer = quiet(callbacks=[Timer({"seconds": 6}), Passing(clock)], max_epochs=1)
    for _ in range(2):
        trainer.fit(Small(), loader())
        trainer.progress.current_epoch = 0
    assert trainer.global_step == 8
