"""What writing in a thread does differently on purpose, on both packages."""

from __future__ import annotations

import importlib
import threading
from pathlib import Path
from time import sleep
from typing import Any

import pytest
from recording import OURS, REFERENCE, callbacks_of, data, quiet_trainer, small_module

pytestmark = pytest.mark.filterwarnings("ignore")


def io_of(namespace: str) -> Any:
    return importlib.import_module(f"{namespace}.pytorch.plugins.io")


def test_saving_while_a_thread_writes(tmp_path: Path) -> None:
    def copies_in_the_air(namespace: str) -> int:
        io = io_of(namespace)
        writes = threading.Event()

        class Slow(io.TorchCheckpointIO):  # type: ignore[name-defined,misc]
            def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
                assert writes.wait(60)
                super().save_checkpoint(*args, **kwargs)

        store = io.AsyncCheckpointIO(Slow())
        copied = []

        def save() -> None:
            for number in range(3):
                store.save_checkpoint({"state_dict": {}}, tmp_path / f"{number}.ckpt")
                copied.append(number)

        saving = threading.Thread(target=save)
        saving.start()
        saving.join(0.3)
        found = len(copied)
        writes.set()
        saving.join(60)
        store.teardown()
        return found

    assert copies_in_the_air(REFERENCE) == 3
    assert copies_in_the_air(OURS) == 1


def steps_with_a_write_that_fails(
    namespace: str, error: Exception, folder: Path
) -> tuple[int, Exception | None]:
    """Save in the first of 8 batches; return how many were trained, and the error."""
    io = io_of(namespace)
    may_fail = threading.Event()

    class Failing(io.TorchCheckpointIO):  # type: ignore[name-defined,misc]
        def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
            assert may_fail.wait(60)
            raise error

    class Saving(callbacks_of(namespace).Callback):  # type: ignore[misc]
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            if trainer.global_step == 1:
                trainer.save_checkpoint(folder / "x.ckpt")
            may_fail.set()
            sleep(0.05)  # the thread has this long to tell

    trainer = quiet_trainer(
        namespace,
        plugins=io.AsyncCheckpointIO(Failing()),
        callbacks=[Saving()],
        max_epochs=1,
        log_every_n_steps=100,
    )
    try:
        trainer.fit(small_module(namespace)(), data(16))
    except Exception as raised:
        return trainer.global_step, raised
    return trainer.global_step, None


def test_write_that_fails_in_a_thread(tmp_path: Path) -> None:
    error = RuntimeError("wires crossed")
    steps, raised = steps_with_a_write_that_fails(REFERENCE, error, tmp_path)
    assert (steps, raised) == (8, error)
    steps, raised = steps_with_a_write_that_fails(OURS, error, tmp_path)
    assert steps < 4
    assert raised is error


def test_disk_that_is_full_when_a_thread_writes(tmp_path: Path) -> None:
    error = OSError("no space left")
    assert steps_with_a_write_that_fails(REFERENCE, error, tmp_path) == (8, error)
    assert steps_with_a_write_that_fails(OURS, error, tmp_path) == (8, None)
