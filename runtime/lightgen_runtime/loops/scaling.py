"""Stepping optimizers whose losses were scaled up, as `16-mixed` needs it.

A gradient that overflowed in 16 bits makes the scaler leave out the step. Which steps
those were is known here, so that schedulers can wait for the optimizer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

from lightgen_runtime.core.optim import wants_closure
from lightgen_runtime.precision.mixed import unscales_itself
from lightgen_runtime.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from lightgen_runtime.loops.progress import Progress


class Scaling:
    """The scaler of a run and what it did to each optimizer's steps.

    For each step: `scale` every loss, `unscale`, clip, `step`, `update`. All optimizers
    that step on gradients of one scale are to step before it is updated.

    Args:
        scaler: The precision's.
        optimizers: The run's.
        progress: Counts the steps, left-out ones included.

    Raises:
        MisconfigurationException: An optimizer evaluates its loss by itself, during
            which nothing could be scaled back.
    """

    def __init__(
        self, scaler: GradScaler, optimizers: list[Optimizer], progress: Progress
    ) -> None:
        for optimizer in optimizers:
            if wants_closure(optimizer):
                raise MisconfigurationException(
                    f"`Trainer(precision='16-mixed')` with {type(optimizer).__name__}: it "
                    "evaluates the loss inside its step, which a gradient scaler does not "
                    "allow. Use 'bf16-mixed' or '32-true', or another optimizer."
                )
        self._scaler = scaler
        self._unscale_themselves = {o for o in optimizers if unscales_itself(o)}
        self._progress = progress
        self._unscaled: set[Optimizer] = set()  # since the last update
        self._stepped: set[Optimizer] = set()
        self._skipped = dict.fromkeys(optimizers, 0)
        # Which step it was, as `global_step` counts them.
        self._last_skipped = dict.fromkeys(optimizers, 0)

    def scale(self, loss: Tensor) -> Tensor:
        """Return the loss to compute gradients of."""
        if self._stepped and self._stepped == self._unscaled:
            self.update()  # by hand, optimizers may take turns within one batch
        return self._scaler.scale(loss)

    def unscale(self, optimizer: Optimizer) -> None:
        """Give an optimizer's gradients, if it has any, their true size; once a step.

        Raises:
            MisconfigurationException: They come from a loss that was not scaled.
        """
        if optimizer in self._stepped:
            self.update()
        if optimizer in self._unscaled or not _has_gradients(optimizer):
            return
        if optimizer not in self._unscale_themselves:
            try:
                self._scaler.unscale_(optimizer)
            except AssertionError as error:  # nothing was ever scaled
                raise MisconfigurationException(
                    f"{type(optimizer).__name__} is to step on gradients that were not "
                    "computed by `self.manual_backward(loss)`, which scales the loss for "
                    "'16-mixed'. Call that instead of `loss.backward()`."
                ) from error
        self._unscaled.add(optimizer)

    def step(self, optimizer: Optimizer, **kwargs: Any) -> Any:
        """Step, unless a gradient overflowed.

        Cost: one host sync, the scaler's own; none for optimizers that unscale by
        themselves, which leave out the step on the device. The host cannot know then.
        """
        if optimizer not in self._unscaled:
            # It has no gradients, which is nothing to a scaler.
            return optimizer.step(**kwargs)
        stepped = optimizer in self._unscale_themselves

        def note(*_: Any) -> None:
            nonlocal stepped
            stepped = True

        handle = optimizer.register_step_post_hook(note)
        try:
            result = self._scaler.step(optimizer, **kwargs)
        finally:
            handle.remove()
        self._stepped.add(optimizer)
        if not stepped:
            self._skipped[optimizer] += 1
            self._last_skipped[optimizer] = self._progress.global_step + 1
        return result

    def update(self) -> None:
        """Adjust the scale to what the steps since the last call met."""
        if self._stepped:
            self._scaler.update()
            self._unscaled.clear()
            self._stepped.clear()

    def steps_of(self, scheduler: Any) -> int | None:
        """Return how many steps the scheduler's optimizer has taken.

        None if the last one was left out, so that the scheduler has nothing to follow.
        """
        optimizer = getattr(scheduler, "optimizer", None)
        if optimizer not in self._skipped:
            optimizer = next(iter(self._skipped))
        counted = self._progress.global_step
        if self._last_skipped[optimizer] == counted:
            return None
        return counted - self._skipped[optimizer]

    def state_dict(self) -> dict[str, list[int]]:
        """Return which steps were left out, by optimizer."""
        return {
            "skipped": list(self._skipped.values()),
            "last_skipped": list(self._last_skipped.values()),
        }

    def load_state_dict(self, state: dict[str, list[int]]) -> None:
        """Take back what `state_dict` returned."""
        optimizers = list(self._skipped)
        self._skipped = dict(zip(optimizers, state["skipped"], strict=True))
        self._last_skipped = dict(zip(optimizers, state["last_skipped"], strict=True))


def _has_gradients(optimizer: Optimizer) -> bool:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                return True
    return False
