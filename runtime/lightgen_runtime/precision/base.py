"""Single precision, and the questions that a run asks any precision."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from lightgen_runtime.utilities.exceptions import MisconfigurationException

CLIP_ALGORITHMS = ("norm", "value")


class Precision:
    """Everything in the dtype it already has: `32-true`.

    Knows nothing of the strategy. Other precisions override what they change.
    """

    precision = "32-true"

    def wrap(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """Return what computes `step` in this precision; here, `step` itself."""
        return step

    def clip_gradients(
        self, parameters: Iterable[Tensor], clip_val: float, algorithm: str
    ) -> None:
        """Limit gradients in place.

        Args:
            parameters: Parameters whose `.grad` is clipped.
            clip_val: Largest norm, or largest absolute value; above 0.
            algorithm: "norm" (of all gradients together) or "value" (of each element).
        """
        if algorithm == "value":
            torch.nn.utils.clip_grad_value_(parameters, clip_val)
        else:
            torch.nn.utils.clip_grad_norm_(parameters, clip_val)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must keep."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what a checkpoint kept."""


def choose_precision(precision: int | str | None) -> Precision:
    """Return the precision that the flag asks for.

    Raises:
        MisconfigurationException: This version does not have it.
    """
    if precision in (None, 32, "32", "32-true"):
        return Precision()
    raise MisconfigurationException(
        f"`Trainer(precision={precision!r})`: this version computes in '32-true'"
    )
