"""16 bits where they do no harm."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.amp import GradScaler
from torch.optim import Optimizer

from lightgen_runtime.precision.base import Precision
from lightgen_runtime.precision.names import one_of
from lightgen_runtime.utilities.exceptions import MisconfigurationException

_DTYPES = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


class MixedPrecision(Precision):
    """Parameters in 32 bits; what is safe is computed in 16, by `torch.autocast`.

    Args:
        precision: "16-mixed" (`torch.float16`, with a scaler) or "bf16-mixed"
            (`torch.bfloat16`, which needs none).
        device: Kind of device that computes: "cuda", "cpu" or "mps".
        scaler: Scales the loss of "16-mixed"; by default a `torch.amp.GradScaler`.

    Raises:
        MisconfigurationException: `precision` is neither, or has no use for a scaler.
    """

    def __init__(
        self, precision: str, device: str, scaler: GradScaler | None = None
    ) -> None:
        self.precision = one_of(precision, tuple(_DTYPES), "MixedPrecision")
        if precision == "bf16-mixed" and scaler is not None:
            raise MisconfigurationException(
                f"`MixedPrecision('bf16-mixed', scaler={scaler!r})`: bfloat16 has the range "
                "of 32 bits and needs no scaler. Leave it out, or use '16-mixed'."
            )
        if precision == "16-mixed" and scaler is None:
            scaler = GradScaler(device)
        self.compute_dtype = _DTYPES[self.precision]
        self.device = device
        self.scaler = scaler

    def autocast_context_manager(self) -> torch.autocast:
        """Return the context that computes in 16 bits."""
        # Source: Lightning keeps no cache of converted weights either; with one, weights
        # used first without gradients would get none later in the same step.
        return torch.autocast(
            self.device, dtype=_DTYPES[self.precision], cache_enabled=False
        )

    def forward_context(self) -> AbstractContextManager[Any]:
        """Compute in 16 bits what is safe in them."""
        return self.autocast_context_manager()

    def clip_gradients(
        self,
        optimizer: Optimizer,
        clip_val: int | float = 0.0,
        gradient_clip_algorithm: str = "norm",
    ) -> None:
        """Limit the gradients of an optimizer's parameters; see `Precision`.

        Raises:
            MisconfigurationException: The optimizer undoes the scaling only inside its
                step, so that what would be clipped is scaled still.
        """
        if self.scaler is not None and clip_val > 0 and unscales_itself(optimizer):
            raise MisconfigurationException(
                f"{type(optimizer).__name__} undoes the scaling of {self.precision!r} "
                "inside its own step, so gradients cannot be clipped before it. Make it "
                "with fused=False, or use 'bf16-mixed', or do not clip."
            )
        super().clip_gradients(optimizer, clip_val, gradient_clip_algorithm)

    def state_dict(self) -> dict[str, Any]:
        """Return the scaler's state."""
        return {} if self.scaler is None else self.scaler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the scaler's state back."""
        if self.scaler is not None:
            self.scaler.load_state_dict(state_dict)


def unscales_itself(optimizer: Optimizer) -> bool:
    """Tell whether the optimizer's step divides by the scale, as fused ones do."""
    # Source: the mark that torch's scaler looks for.
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))
