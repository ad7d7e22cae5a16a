"""Where a fit that a signal ends differs, on both packages."""

from __future__ import annotations

import importlib
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from recording import OURS, REFERENCE, data, quiet_trainer, small_module

from lightgen_runtime.trainer import interruption

pytestmark = pytest.mark.filterwarnings("ignore")


def kept(namespace: str, number: int, folder: Path) -> tuple[int, list[str]]:
    """Send a signal inside the second batch; return the steps done and the files left."""

    class Signalled(small_module(namespace)):  # type: ignore[misc]
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if batch_idx == 1:
                os.kill(os.getpid(), number)
            return super().training_step(batch, batch_idx)

    trainer = quiet_trainer(
        namespace, max_epochs=1, enable_checkpointing=True, default_root_dir=folder
    )
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        trainer.fit(Signalled(), data())
    return trainer.global_step, [path.name for path in folder.rglob("*.ckpt")]


def test_checkpoint_of_a_terminated_fit(tmp_path: Path) -> None:
    assert kept(REFERENCE, signal.SIGTERM, tmp_path / REFERENCE) == (2, [])
    ours = kept(OURS, signal.SIGTERM, tmp_path / OURS)
    assert ours == (2, ["interrupted-step=2.ckpt"])


def test_checkpoint_of_a_fit_interrupted_by_ctrl_c(tmp_path: Path) -> None:
    assert kept(REFERENCE, signal.SIGINT, tmp_path / REFERENCE) == (1, [])
    ours = kept(OURS, signal.SIGINT, tmp_path / OURS)
    assert ours == (2, ["interrupted-step=2.ckpt"])


def first_batch_of_requeued(
    namespace: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> int:
    """Break a fit of a job off in its second epoch; return where its next start begins."""
    callbacks = importlib.import_module(f"{namespace}.pytorch.callbacks")
    begun: list[int] = []

    class Broken(small_module(namespace)):  # type: ignore[misc]
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            begun.append(self.trainer.global_step)
            if len(begun) == 6:
                raise KeyError("as if killed")
            return super().training_step(batch, batch_idx)

    monkeypatch.setenv("SLURM_JOB_ID", "7")
    for restarts in ("0", "1"):
        monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
        if namespace == OURS:
            interruption._fits.clear()  # as in another process
        keep = callbacks.ModelCheckpoint(folder)
        trainer = quiet_trainer(
            namespace, max_epochs=2, enable_checkpointing=True, callbacks=[keep]
        )
        with suppress(KeyError):
            trainer.fit(Broken(), data())
    return begun[6]


def test_requeued_job_that_had_no_time_to_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert first_batch_of_requeued(REFERENCE, tmp_path / REFERENCE, monkeypatch) == 0
    assert first_batch_of_requeued(OURS, tmp_path / OURS, monkeypatch) == 4
