"""One training step, in the three ways there are; a fit uses one of them throughout.

* direct: nothing about stepping is overridden. A straight line, no closure.
* closure: `optimizer_step`, `optimizer_zero_grad` or `backward` is overridden, the
  optimizer wants to evaluate the loss again (LBFGS), or the precision scales the loss.
  The module is handed a closure.
* manual: `training_step` does everything itself.

Direct and closure call the same hooks in the same order and compute the same bits. With
several named optimizers the step is that of `loops/named_step.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.optim import Optimizer

from lightgen_runtime.core.optim import wants_closure
from lightgen_runtime.loops.named_step import named_step
from lightgen_runtime.loops.outputs import (
    StepFn,
    bound_training_step,
    loss_of,
    outputs_of,
)
from lightgen_runtime.profilers.base import PassThroughProfiler
from lightgen_runtime.utilities.exceptions import MisconfigurationException

if TYPE_CHECKING:
    from lightgen_runtime.loops.run import Run

_STEPPING_HOOKS = ("optimizer_step", "optimizer_zero_grad", "backward")


def choose_step(run: Run) -> StepFn:
    """Return the step function for this fit."""
    step = run.parts.strategy.windowed(_choose(run))
    return run.measured("run_training_batch", step)


def _choose(run: Run) -> StepFn:
    if not run.module.automatic_optimization:
        return manual_step(run)
    if run.plan.names:
        return named_step(run)
    # Only in the closure step can a profiler tell the parts of a step from each other.
    measures = not isinstance(run.parts.profiler, PassThroughProfiler)
    if (
        measures
        or run.scaling is not None
        or wants_closure(run.plan.optimizers[0])
        or any(run.overrides(name) for name in _STEPPING_HOOKS)
    ):
        return closure_step(run)
    return direct_step(run)


def direct_step(run: Run) -> StepFn:
    """Make the step for when nothing about stepping is overridden."""
    hooks, context, progress = run.hooks, run.context, run.progress
    fire = hooks.fire
    scope = run.scopes["training_step"]
    training_step = bound_training_step(run)
    optimizer = run.plan.optimizers[0]
    # Dropping gradients by hand takes half the time of torch's method, unless the
    # optimizer has a method of its own.
    own_zero_grad = type(optimizer).zero_grad is not Optimizer.zero_grad

    def step(
        batch: Any, batch_idx: int, first: bool, last: bool, divisor: int
    ) -> dict[str, Any] | None:
        context.scope = scope
        output = training_step(batch, batch_idx)
        loss = output if type(output) is Tensor else loss_of(output)
        if first:
            if hooks.on_before_zero_grad is not None:
                fire(hooks.on_before_zero_grad, optimizer)
            if own_zero_grad:
                optimizer.zero_grad()
            else:
                for group in optimizer.param_groups:
                    for parameter in group["params"]:
                        parameter.grad = None
        if loss is not None:
            if divisor != 1:
                loss = loss / divisor
            if hooks.on_before_backward is not None:
                fire(hooks.on_before_backward, loss)
            loss.backward()  # type: ignore[no-untyped-call]
            if hooks.on_after_backward is not None:
                fire(hooks.on_after_backward)
        if last:
            if hooks.on_before_optimizer_step is not None:
                fire(hooks.on_before_optimizer_step, optimizer)
            if run.clipping is not None:
                run.clipping(optimizer)
            optimizer.step()
            progress.global_step += 1
        return None if hooks.on_train_batch_end is None else outputs_of(output, loss)

    return step


def closure_step(run: Run) -> StepFn:
    """Make the step for modules or optimizers that want a closure."""
    hooks, context, progress, module = run.hooks, run.context, run.progress, run.module
    fire, scopes = hooks.fire, run.scopes
    training_step = bound_training_step(run)
    optimizer, wrapped = run.plan.optimizers[0], run.plan.wrapped[0]
    optimizer_step, zero_grad, backward = _stepping_hooks(run)
    scale = None if run.scaling is None else run.scaling.scale
    # What the closure works on; assigned anew for each batch, so that one closure serves.
    batch: Any = None
    batch_idx = 0
    first = True
    divisor = 1
    output: Any = None
    loss: Tensor | None = None
    called = False

    def closure() -> Tensor | None:
        nonlocal output, loss, called
        called = True
        context.scope = scopes["training_step"]
        output = training_step(batch, batch_idx)
        loss = loss_of(output)
        if first:
            if hooks.on_before_zero_grad is not None:
                fire(hooks.on_before_zero_grad, optimizer)
            context.scope = scopes["optimizer_zero_grad"]
            zero_grad(progress.current_epoch, batch_idx, optimizer)
        if loss is not None:
            if divisor != 1:
                loss = loss / divisor
            scaled = loss if scale is None else scale(loss)
            if hooks.on_before_backward is not None:
                fire(hooks.on_before_backward, scaled)
            context.scope = scopes["backward"]
            backward(scaled)
            if hooks.on_after_backward is not None:
                fire(hooks.on_after_backward)
        return loss

    def step(
        new_batch: Any, new_idx: int, opens: bool, closes: bool, new_divisor: int
    ) -> dict[str, Any] | None:
        nonlocal batch, batch_idx, first, divisor, called
        called = False
        batch, batch_idx, first, divisor = new_batch, new_idx, opens, new_divisor
        if closes:
            context.scope = scopes["optimizer_step"]
            optimizer_step(progress.current_epoch, batch_idx, wrapped, closure)
            if not called:
                raise MisconfigurationException(
                    f"`{type(module).__name__}.optimizer_step` did not call its closure, "
                    "which computes the loss. Pass it on with "
                    "`optimizer.step(closure=optimizer_closure)`, or call "
                    "`optimizer_closure()`."
                )
            progress.global_step += 1
        else:
            closure()
        return None if hooks.on_train_batch_end is None else outputs_of(output, loss)

    return step


def _stepping_hooks(run: Run) -> tuple[Callable[..., Any], ...]:
    """Return `optimizer_step`, `optimizer_zero_grad` and `backward`, bound once."""
    module = run.module
    owner = f"[LightningModule]{type(module).__name__}"
    strategy = f"[Strategy]{type(run.parts.strategy).__name__}"
    return (
        run.measured(f"{owner}.optimizer_step", module.optimizer_step),
        run.measured(f"{owner}.optimizer_zero_grad", module.optimizer_zero_grad),
        run.measured(f"{strategy}.backward", module.backward),
    )


def manual_step(run: Run) -> StepFn:
    """Make the step for modules that optimize by hand."""
    hooks, context, scaling = run.hooks, run.context, run.scaling
    scope = run.scopes["training_step"]
    training_step = bound_training_step(run)

    def step(
        batch: Any, batch_idx: int, first: bool, last: bool, divisor: int
    ) -> dict[str, Any] | None:
        context.scope = scope
        output = training_step(batch, batch_idx)
        if scaling is not None:
            scaling.update()
        if output is None or isinstance(output, Tensor):
            loss = output
        elif isinstance(output, Mapping):
            loss = output.get("loss")
        else:
            raise MisconfigurationException(
                f"`training_step` returned {type(output).__name__}; in manual optimization "
                'it returns a tensor, a mapping (its "loss" a tensor), or nothing'
            )
        return None if hooks.on_train_batch_end is None else outputs_of(output, loss)

    return step
