"""What goes into a training step and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lightgen_runtime.loops.signature import positional
from lightgen_runtime.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from lightgen_runtime.loops.run import Run

# (batch, batch_idx, opens a window, closes it, divisor of the loss) -> outputs for hooks
StepFn = Callable[[Any, int, bool, bool, int], "dict[str, Any] | None"]


def bound_training_step(run: Run) -> Callable[[Any, int], Any]:
    """Return `training_step`, in the run's precision and strategy, bound once."""
    given = positional(run.module.training_step, 2, "training_step(batch, batch_idx)")
    strategy = run.parts.strategy
    bound = strategy.bind(run.parts.precision.wrap(given), trains=True)
    return run.measured(f"[Strategy]{type(strategy).__name__}.training_step", bound)


def loss_of(output: Any) -> Tensor | None:
    """Return the loss in what `training_step` returned.

    Raises:
        MisconfigurationException: It is neither a tensor, nor a mapping with one under
            "loss", nor None.
    """
    if output is None:
        return None
    loss = output.get("loss") if isinstance(output, Mapping) else output
    if isinstance(loss, Tensor):
        return loss
    found = (
        f"a mapping with the keys {sorted(map(str, output))}"
        if isinstance(output, Mapping)
        else f"{type(output).__name__}"
    )
    raise MisconfigurationException(
        f"`training_step` returned {found}; in automatic optimization it returns the loss "
        'tensor, a mapping with the loss tensor under "loss", or None to skip the batch'
    )


def outputs_of(output: Any, loss: Tensor | None) -> dict[str, Any]:
    """Return what `on_train_batch_end` is given: the detached loss and the user's extras."""
    outputs = dict(output) if isinstance(output, Mapping) else {}
    if loss is not None:
        outputs["loss"] = loss.detach()
    return outputs
