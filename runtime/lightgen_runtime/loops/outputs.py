"""What goes into a training step and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lightgen_runtime.loops.signature import positional
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.nearest import nearest
from lightgen_runtime.utilities.rank_zero import rank_zero_warn

if TYPE_CHECKING:
    from lightgen_runtime.loops.run import Run

# (batch, batch_idx, opens a window, closes it, divisor of the loss) -> outputs for hooks
StepFn = Callable[[Any, int, bool, bool, int], "dict[str, Any] | None"]


def bound_training_step(run: Run) -> Callable[[Any, int], Any]:
    """Return `training_step`, in the run's precision and strategy, bound once."""
    method = run.step_of("training_step")
    given = positional(method, 2, "training_step(batch, batch_idx)")
    strategy = run.parts.strategy
    bound = strategy.bind(run.parts.precision.wrap(given), trains=not run.forward_only)
    return run.measured(f"[Strategy]{type(strategy).__name__}.training_step", bound)


def loss_of(output: Any) -> Tensor | None:
    """Return the loss in what `training_step` returned.

    Raises:
        MisconfigurationException: It is neither a tensor, nor a mapping with one under
            "loss", nor None.
    """
    if output is None:
        warn_of_no_loss()
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
        'tensor, a mapping with the loss tensor under "loss", or None to skip the batch.'
        f"{_hint(output, loss)}"
    )


def warn_of_no_loss() -> None:
    """Say, the first time, that a batch changes nothing."""
    rank_zero_warn(
        "`training_step` returned None: the batch is skipped. If it is to train, return "
        "the loss; if not, ignore this."
    )


def _hint(output: Any, loss: Any) -> str:
    """Return what to do next, as far as the output tells."""
    if isinstance(loss, (int, float)):
        return " A number has no gradients: return the tensor, before `.item()`."
    keys = [str(key) for key in output] if isinstance(output, Mapping) else []
    near = nearest("loss", keys)
    if near not in (None, "loss"):
        return f" Did you mean 'loss' where it says {near!r}?"
    parts = list(output.values()) if isinstance(output, Mapping) else output
    if not isinstance(parts, (list, tuple)):
        return ""
    if sum(isinstance(part, Tensor) for part in parts) > 1:
        return (
            " One optimizer minimises one loss: add them up. For a loss each, return "
            "optimizers from `configure_optimizers` and losses from here by the same "
            'names, {"a": ..., "b": ...}.'
        )
    return ""


def outputs_of(output: Any, loss: Tensor | None) -> dict[str, Any]:
    """Return what `on_train_batch_end` is given: the detached loss and the user's extras."""
    outputs = dict(output) if isinstance(output, Mapping) else {}
    if loss is not None:
        outputs["loss"] = loss.detach()
    return outputs
