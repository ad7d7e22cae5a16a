"""Single precision, and the questions that a run asks any precision."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any

import torch
from torch import nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from lightgen_runtime.core.hooks import is_overridden

CLIP_ALGORITHMS = ("norm", "value")


class Precision:
    """Everything in the dtype it already has: `32-true`.

    Subclass it for a precision of your own and give it to `Trainer(plugins=...)`. It
    knows nothing of the strategy and nothing of the loops.

    Attributes:
        precision: Its name, which `trainer.precision` tells.
        scaler: What scales losses so that small gradients do not vanish; None if nothing.
        compute_dtype: What layers compute in, if not in their parameters' own type.
        clip_norm: Limits the norm of all gradients of some parameters together; the
            trainer sets it to what fits its strategy.
        clip_value: Limits each element of their gradients; likewise.
    """

    precision: str = "32-true"
    scaler: GradScaler | None = None
    compute_dtype: torch.dtype | None = None
    clip_norm: Callable[..., Any] = staticmethod(torch.nn.utils.clip_grad_norm_)
    clip_value: Callable[..., Any] = staticmethod(torch.nn.utils.clip_grad_value_)

    def convert_module(self, module: nn.Module) -> nn.Module:
        """Give the module's parameters and buffers their dtype, in place."""
        return module

    def convert_input(self, data: Any) -> Any:
        """Return a batch, fresh from its loader, in the dtype that the steps get."""
        return data

    def module_init_context(self) -> AbstractContextManager[Any]:
        """Surround `configure_model`, so that layers are made in their dtype."""
        return nullcontext()

    def forward_context(self) -> AbstractContextManager[Any]:
        """Surround each call of a step method."""
        return nullcontext()

    def wrap(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """Return what computes `step` in `forward_context`: itself, if that is nothing."""
        if not is_overridden("forward_context", self, Precision):
            return step

        @wraps(step)
        def in_context(*args: Any, **kwargs: Any) -> Any:
            with self.forward_context():
                return step(*args, **kwargs)

        return in_context

    def clip_gradients(
        self,
        optimizer: Optimizer,
        clip_val: int | float = 0.0,
        gradient_clip_algorithm: str = "norm",
    ) -> None:
        """Limit the gradients of an optimizer's parameters, in place.

        Args:
            optimizer: Whose parameters.
            clip_val: Largest norm, or largest absolute value; 0 does nothing.
            gradient_clip_algorithm: "norm" (of all gradients together) or "value" (of
                each element).
        """
        if clip_val <= 0:
            return
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if gradient_clip_algorithm == "value":
            self.clip_value(parameters, clip_val)
        else:
            self.clip_norm(parameters, clip_val)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must keep."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what a checkpoint kept."""

    def teardown(self) -> None:
        """Release what a run needed; called at its end."""
