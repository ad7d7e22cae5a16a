"""Fits on a CUDA device, interrupted and gone on with, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from gpu_runs import DEVICE, Classifier, assert_same, loader, on_gpu, quiet
from torch import Tensor

from lightgen_runtime import Callback, Trainer
from lightgen_runtime.plugins import MixedPrecision

pytestmark = on_gpu


class Saved(Callback):
    """Saves behind one batch; raises there, if it is to."""

    def __init__(self, path: Path, batch_idx: int) -> None:
        self.path, self.batch_idx = path, batch_idx

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == self.batch_idx and trainer.current_epoch == 1:
            trainer.save_checkpoint(self.path)
            raise KeyboardInterrupt


class Overflowing(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        return loss * (1e38 if batch_idx == 4 else 1.0)


def plugins(precision: str) -> dict[str, Any]:
    if precision != "16-mixed":
        return {"precision": precision}
    scaler = torch.amp.GradScaler(DEVICE.type, init_scale=2.0**10, growth_interval=3)
    return {"plugins": MixedPrecision("16-mixed", DEVICE.type, scaler)}


@pytest.mark.parametrize("batch_idx", [2, 5, 11])
@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("precision", ["32-true", "bf16-true", "16-mixed"])
def test_fit_goes_on_bit_for_bit(
    precision: str, accumulate: int, batch_idx: int, tmp_path: Path
) -> None:
    path = tmp_path / "inside.ckpt"
    make = Overflowing if precision == "16-mixed" else Classifier

    def fitted(resume: Path | None = None, *callbacks: Callback) -> Trainer:
        torch.manual_seed(7)
        trainer = quiet(
            max_epochs=3,
            accumulate_grad_batches=accumulate,
            callbacks=list(callbacks),
            val_check_interval=5,
            **plugins(precision),
        )
        trainer.fit(make(), loader(shuffle=True), loader(), ckpt_path=resume)
        return trainer

    whole = fitted()
    with pytest.raises(KeyboardInterrupt):
        fitted(None, Saved(path, batch_idx))
    torch.cuda.manual_seed_all(99)  # whatever was drawn there since
    resumed = fitted(path)
    ours, theirs = resumed.lightning_module, whole.lightning_module
    assert_same(ours.state_dict(), theirs.state_dict())
    assert resumed.precision_plugin.state_dict() == whole.precision_plugin.state_dict()
    for name, value in whole.callback_metrics.items():
        assert torch.equal(resumed.callback_metrics[name], value), name
