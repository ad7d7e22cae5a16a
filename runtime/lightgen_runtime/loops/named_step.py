"""The training step with several optimizers and a loss for each, by name.

All gradients are computed before any optimizer steps, each loss giving gradients to its
own optimizer's parameters only: every loss sees the same weights, and none leaks into
another's. What must alternate (a second forward after the first step) is manual.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lightgen_runtime.loops.outputs import (
    StepFn,
    bound_training_step,
    warn_of_no_loss,
)
from lightgen_runtime.utilities.call_site import function_site
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.nearest import nearest

if TYPE_CHECKING:
    from lightgen_runtime.loops.run import Run


# Their gradients would be those of this process alone, and its weights others.
_SKIPS_ONE = (
    "`training_step` at {} returned None as a loss, and there are several processes, which "
    "wait for its gradients. Return a loss in every process, for example `0.0 * loss` to "
    "leave this batch out."
)


def named_step(run: Run) -> StepFn:
    """Make the step for named optimizers; `global_step` counts it once."""
    hooks, context, progress = run.hooks, run.context, run.progress
    fire = hooks.fire
    scope = run.scopes["training_step"]
    training_step = bound_training_step(run)
    names, optimizers = run.plan.names, run.plan.optimizers
    scaling = run.scaling
    several = run.parts.strategy.world_size > 1
    backward = run.parts.strategy.backward_into
    _check_overrides(run)
    _check_disjoint(run)

    def step(
        batch: Any, batch_idx: int, first: bool, last: bool, divisor: int
    ) -> dict[str, Any] | None:
        context.scope = scope
        output = training_step(batch, batch_idx)
        losses = losses_of(output, names)
        if first:
            for optimizer in optimizers:
                fire(hooks.on_before_zero_grad, optimizer)
                optimizer.zero_grad()
        remaining = sum(loss is not None for loss in losses)
        if several and remaining < len(losses):
            where = function_site(run.module.training_step)
            raise MisconfigurationException(_SKIPS_ONE.format(where))
        for optimizer, loss in zip(optimizers, losses, strict=True):
            if loss is None:
                continue
            remaining -= 1
            own = [p for group in optimizer.param_groups for p in group["params"]]
            loss = loss / divisor if divisor != 1 else loss
            loss = loss if scaling is None else scaling.scale(loss)
            fire(hooks.on_before_backward, loss)
            backward(loss, own, retain_graph=remaining > 0)
            fire(hooks.on_after_backward)
        if last:
            if scaling is not None:
                for optimizer in optimizers:
                    scaling.unscale(optimizer)
            for optimizer in optimizers:
                fire(hooks.on_before_optimizer_step, optimizer)
                if run.clipping is not None:
                    run.clipping(optimizer)
                if scaling is None:
                    optimizer.step()
                else:
                    scaling.step(optimizer)
            if scaling is not None:
                scaling.update()
            progress.global_step += 1
        if hooks.on_train_batch_end is None:
            return None
        return {
            key: value.detach() if isinstance(value, Tensor) else value
            for key, value in (output or {}).items()
        }

    return step


def losses_of(output: Any, names: list[str]) -> list[Tensor | None]:
    """Return the loss of each named optimizer from what `training_step` returned.

    A loss of None, or None for all, leaves out the gradients of this batch; only a run in
    one process can do that.

    Raises:
        MisconfigurationException: A name is missing or unknown, or a loss is no tensor.
    """
    if output is None:
        warn_of_no_loss()
        return [None] * len(names)
    expected = f"a mapping with a loss for each of the optimizers {names}"
    if not isinstance(output, Mapping):
        raise MisconfigurationException(
            f"`training_step` returned {type(output).__name__}; with named optimizers it "
            f"returns {expected}"
        )
    missing = [name for name in names if name not in output]
    if missing:
        near = nearest(missing[0], output)
        hint = f" Did you mean {missing[0]!r} where it says {near!r}?" if near else ""
        raise MisconfigurationException(
            f"`training_step` returned a mapping with the keys {sorted(map(str, output))}; "
            f"{missing} missing: it returns {expected} (None skips one).{hint}"
        )
    losses = [output[name] for name in names]
    for name, loss in zip(names, losses, strict=True):
        if loss is not None and not isinstance(loss, Tensor):
            raise MisconfigurationException(
                f"`training_step` returned {type(loss).__name__} as the loss {name!r}; a "
                "tensor of one element or None is needed"
            )
    return losses


def _check_overrides(run: Run) -> None:
    for name in ("optimizer_step", "optimizer_zero_grad", "backward"):
        if run.overrides(name):
            raise MisconfigurationException(
                f"`{name}` is overridden, and `configure_optimizers` returned named "
                "optimizers, whose steps the trainer takes itself. Set "
                "`self.automatic_optimization = False` and step them in `training_step`."
            )


def _check_disjoint(run: Run) -> None:
    owners: dict[Tensor, str] = {}
    for name, optimizer in zip(run.plan.names, run.plan.optimizers, strict=True):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                other = owners.setdefault(parameter, name)
                if other != name:
                    raise MisconfigurationException(
                        f"the optimizers {other!r} and {name!r} share a parameter of shape "
                        f"{tuple(parameter.shape)}; with a loss for each optimizer a "
                        "parameter belongs to one of them"
                    )
