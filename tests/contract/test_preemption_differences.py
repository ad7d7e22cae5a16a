"""Where a fit that a signal ends differs, on both packages."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from recording import data, quiet_trainer, small_module

OURS, REFERENCE = "lightgen_runtime", "lightning"

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
