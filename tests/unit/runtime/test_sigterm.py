"""A fit whose process is asked to terminate: when it ends, what is saved, what comes next."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import Small, assert_says, loader, message_of, quiet, variant

from lightgen_runtime.callbacks import (
    OnExceptionCheckpoint,
    Preemption,
)
from lightgen_runtime.trainer import signals
from lightgen_runtime.utilities.exceptions import SIGTERMException


@pytest.fixture(autouse=True)
def handler_as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    assert signal.getsignal(signal.SIGTERM) is before


def terminated_at(batch: int, hook: str = "training_step") -> Small:
    """Return a module that sends the signal to its own process."""
    original = getattr(Small, hook)

    def send(self: Any, *args: Any) -> Any:
        if self.trainer.fit_loop.total_batch_idx == batch:
            os.kill(os.getpid(), signal.SIGTERM)
        self.__dict__["steps"] = self.__dict__.get("steps", 0) + 1
        return original(self, *args)

    return variant(**{hook: send})


def fit(module: Any, **flags: Any) -> Any:
    trainer = quiet(**{"max_epochs": 2, **flags})
    with pytest.raises(SIGTERMException) as caught:
        trainer.fit(module, loader(), loader(4))
    assert caught.value.code == 143
    assert trainer.received_sigterm
    assert trainer.interrupted
    return trainer


def test_running_batch_is_finished_and_no_other_begun() -> None:
    module = terminated_at(2)
    assert fit(module).global_step == 3
    assert module.steps == 3


def test_signal_behind_the_last_batch_ends_the_program_all_the_same() -> None:
    module = terminated_at(4, "on_train_end")
    assert fit(module, max_epochs=1).global_step == 4


def test_state_is_saved_and_gone_on_from(tmp_path: Path) -> None:
    whole = Small()
    trainer = quiet(max_epochs=2)
    trainer.fit(whole, loader(), loader(4))
    kept: dict[str, Any] = {
        "callbacks": [OnExceptionCheckpoint(tmp_path)],
        "enable_checkpointing": None,
    }
    fit(terminated_at(5), **kept)
    resumed = Small()
    again = quiet(max_epochs=2, **kept)
    with pytest.warns(UserWarning, match=r"on_exception\.ckpt"):
        again.fit(resumed, loader(), loader(4))
    assert again.global_step == trainer.global_step == 8
    assert torch.equal(resumed.layer.weight, whole.layer.weight)


def test_validation_ends_at_its_next_batch_and_is_gone_on_with(tmp_path: Path) -> None:
    class Counting(Small):
        validated = 0

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.validated += 1
            super().validation_step(batch, batch_idx)

    whole = quiet(max_epochs=1)
    whole.fit(Small(), loader(), loader(4))
    checkpoint = OnExceptionCheckpoint(tmp_path)
    trainer = fit(terminated_at(3), callbacks=checkpoint, enable_checkpointing=None)
    assert trainer.callback_metrics == {}  # two batches it has, one was validated
    module = Counting()
    again = quiet(max_epochs=1)
    again.fit(module, loader(), loader(4), ckpt_path=checkpoint.ckpt_path)
    assert module.validated == 1
    assert again.callback_metrics == whole.callback_metrics
    assert "val_loss" in again.callback_metrics


def test_next_fit_begins_without_the_signal() -> None:
    module = terminated_at(0)
    trainer = fit(module)
    trainer.fit(Small(), loader(), loader(4))
    assert (trainer.received_sigterm, trainer.global_step) == (False, 9)


def test_handler_of_the_program_is_called_too() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        fit(terminated_at(1))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM]


def test_program_that_ignores_the_signal_trains_on() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        trainer = quiet()
        trainer.fit(terminated_at(1), loader())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert trainer.global_step == 4


def test_fit_outside_of_the_main_thread_installs_nothing() -> None:
    trainer = quiet()
    thread = threading.Thread(target=lambda: trainer.fit(Small(), loader()))
    thread.start()
    thread.join()
    assert trainer.global_step == 4


def test_deadline_holds_though_the_other_processes_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("connection closed by peer")

    flags = {"enable_checkpointing": True, "default_root_dir": tmp_path}
    trainer = quiet(callbacks=Preemption(deadline_s=0.2), **flags)
    monkeypatch.setattr(trainer.strategy, "stop_votes", Gone)
    with pytest.raises(SIGTERMException):
        trainer.fit(terminated_at(2), loader())
    assert list(tmp_path.rglob("interrupted-*")) == []


def test_vote_that_another_process_does_not_answer_ends_the_fit_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Unanswered:
        def asked(self) -> None: ...
        def ask(self, number: int) -> int:
            return number

        def vote(self, batch: int) -> None: ...
        def result(self) -> None: ...

    trainer = quiet(enable_checkpointing=True, default_root_dir=tmp_path)
    monkeypatch.setattr(trainer.strategy, "stop_votes", Unanswered)
    monkeypatch.setattr(signals, "_VOTES_WITHIN_S", 0.1)
    start = time.monotonic()
    with pytest.raises(SIGTERMException):
        trainer.fit(terminated_at(2), loader())
    assert time.monotonic() - start < 20  # the deadline is 30 s
    assert list(tmp_path.rglob("interrupted-*")) == []
    assert "SIGTERM: another process does not answer" in capsys.readouterr().err


PROGRAM = """
import os, signal, torch
from lightgen_runtime import Trainer
from lightgen_runtime.demos.boring_classes import BoringModel

class Model(BoringModel):
    def training_step(self, batch, batch_idx):
        os.kill(os.getpid(), signal.SIGTERM)
        return super().training_step(batch, batch_idx)

Trainer(max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False).fit(Model())
print("never")
"""


def test_program_ends_with_the_exit_code_of_the_signal() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (143, "")


def test_ctrl_c_is_the_programs_own_if_it_handles_it(tmp_path: Path) -> None:
    def handle(number: int, frame: Any) -> None:
        raise ZeroDivisionError

    def send(self: Any, batch: Any, batch_idx: int) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return Small.training_step(self, batch, batch_idx)

    before = signal.signal(signal.SIGINT, handle)
    try:
        trainer = quiet(enable_checkpointing=True, default_root_dir=tmp_path)
        with pytest.raises(ZeroDivisionError):
            trainer.fit(variant(training_step=send), loader())
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"signals": ["SIGTREM"]}, "Did you mean 'SIGTERM'?"),
        ({"signals": ["SIGKILL"]}, "no program can catch SIGKILL"),
        ({"signals": ["SIGINT"]}, "Ctrl-C"),
        ({"deadline_s": 0}, "more than 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    arguments: dict[str, Any], part: str
) -> None:
    assert_says(message_of(Preemption, **arguments), part)


def test_settings_change_no_hook() -> None:
    trainer = quiet(callbacks=Preemption(signals=["SIGUSR1"]))
    before = signal.getsignal(signal.SIGUSR1)
    trainer.fit(Small(), loader())
    assert signal.getsignal(signal.SIGUSR1) is before
