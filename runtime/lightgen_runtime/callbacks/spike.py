"""Ending a run at a sudden rise of the loss, and naming the batches to leave out."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from lightgen_runtime.callbacks.callback import Callback
from lightgen_runtime.utilities.atomic_write import atomic_write
from lightgen_runtime.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from lightgen_runtime.callbacks.callback import StepOutput
    from lightgen_runtime.core.module import LightningModule
    from lightgen_runtime.trainer.trainer import Trainer

FILE_NAME = "skip_batches.json"


class TrainingSpikeException(RuntimeError):
    """The loss of a batch is a spike.

    Args:
        batch_idx: Which batch of its epoch, from 0.
        args: Further arguments of the exception.
    """

    def __init__(self, batch_idx: int, *args: Any) -> None:
        super().__init__(f"Training spike detected in batch {batch_idx}", *args)
        self.batch_idx = batch_idx


class SpikeDetection(Callback):
    """Raise when a loss is far worse than those before it.

    The batch and the one before it, which may have spoilt the weights, are written to a
    JSON file, so that a resumed run can leave them out.

    Args:
        mode: `min` or `max`: which end of the loss is good.
        window: Batches whose mean is the reference.
        warmup: First batch of an epoch, from 0, that can be a spike.
        atol: Least distance from the reference; None for any.
        rtol: Least distance from the reference as a multiple of it; None for any.
        exclude_batches_path: The JSON file, or the folder for `skip_batches.json`; None
            is the trainer's `default_root_dir`.
        finite_only: Take NaN and infinity for a spike.

    Raises:
        TrainingSpikeException: During the run.

    Cost: one host sync a batch.

    Compat: Lightning needs torchmetrics for it, and cannot load its state.
    """

    def __init__(
        self,
        mode: Literal["min", "max"] = "min",
        window: int = 10,
        warmup: int = 1,
        atol: float | None = None,
        rtol: float | None = 2.0,
        exclude_batches_path: str | Path | None = None,
        finite_only: bool = True,
    ) -> None:
        if mode not in ("min", "max"):
            raise MisconfigurationException(
                f"`mode={mode!r}` is not accepted. Use `min` when a smaller loss is "
                "better, else `max`."
            )
        if window < 1:
            raise MisconfigurationException(
                f"`window={window}` is not accepted. Use the number of batches to take "
                "the mean of, 1 or more."
            )
        self.mode = mode
        self.warmup = warmup
        self.atol = atol
        self.rtol = rtol
        self.finite_only = finite_only
        self.exclude_batches_path = exclude_batches_path
        self.bad_batches: list[int] = []
        self.last_val: Tensor | float = 0.0
        self._recent: deque[Tensor] = deque(maxlen=window)

    def state_dict(self) -> dict[str, Any]:
        """Return the reference, and the batches found so far."""
        path = self.exclude_batches_path
        return {
            "last_val": float(self.last_val),
            "mode": self.mode,
            "warmup": self.warmup,
            "atol": self.atol,
            "rtol": self.rtol,
            "bad_batches": self.bad_batches,
            "bad_batches_path": None if path is None else str(path),
            "recent": [float(value) for value in self._recent],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with that reference.

        The path stays this callback's own: a file does not decide what is overwritten.
        """
        self.last_val = state_dict["last_val"]
        self.mode = state_dict["mode"]
        self.warmup = state_dict["warmup"]
        self.atol = state_dict["atol"]
        self.rtol = state_dict["rtol"]
        self.bad_batches = list(state_dict["bad_batches"])
        # Lightning's files have no such values.
        self._recent.extend(map(torch.tensor, state_dict.get("recent", [])))

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: StepOutput,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Compare the loss with those before it."""
        loss = outputs["loss"] if isinstance(outputs, Mapping) else outputs
        if not isinstance(loss, Tensor):
            raise TypeError(
                f"`SpikeDetection` needs the loss that `training_step` returns, got "
                f"{type(outputs).__name__}"
            )
        loss = loss.detach()
        is_spike = batch_idx >= self.warmup and self._is_spike(loss)
        if trainer.strategy.reduce_boolean_decision(is_spike, all=False):
            self.bad_batches += [batch_idx - 1, batch_idx]
            if trainer.is_global_zero:
                self._write(trainer)
            raise TrainingSpikeException(batch_idx)
        if self.finite_only or torch.isfinite(loss).all():
            self._recent.append(loss)
            self.last_val = loss

    def _is_spike(self, loss: Tensor) -> bool:
        if self.finite_only and not torch.isfinite(loss):
            return True
        change = loss - self.last_val
        is_better = change <= 0 if self.mode == "min" else change >= 0
        if is_better or not self._recent:
            return False
        reference = torch.stack([v.to(loss.device) for v in self._recent]).mean()
        distance = abs(loss - reference)
        return bool(
            (self.atol is None or distance >= abs(self.atol))
            and (self.rtol is None or distance >= abs(self.rtol * reference))
        )

    def _write(self, trainer: Trainer) -> None:
        path = Path(self.exclude_batches_path or trainer.default_root_dir)
        if path.suffix != ".json":
            path /= FILE_NAME
        self.exclude_batches_path = str(path)
        with atomic_write(path) as stream:
            stream.write(json.dumps(self.bad_batches, indent=4).encode())
