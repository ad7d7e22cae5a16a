"""Whether a specification and the module it is for go together."""

from __future__ import annotations

import ast

from lightgen.blocks.module_file import (
    calls_optimizers,
    init_arguments,
    is_manual,
    logged_names,
    returned_losses,
)
from lightgen.errors import OptimizerOptionError, listing, nearest
from lightgen.optim.schedule import Stage
from lightgen.optim.spec import OptimizerSpec, OptimSpec
from lightgen.optim.values import Hparam


def check_module(spec: OptimSpec, class_: ast.ClassDef, path: str) -> None:
    """Check a specification against the source of its module.

    Raises:
        OptimizerOptionError: The module lacks what the specification relies on.
    """
    where = f"{path}:{class_.lineno}"
    _check_hparams(spec, class_, where)
    _check_monitors(spec, class_, where)
    if spec.labelled:
        _check_steps(spec, class_, where)


def _check_hparams(spec: OptimSpec, class_: ast.ClassDef, where: str) -> None:
    arguments, takes_more = init_arguments(class_)
    made: list[OptimizerSpec | Stage] = [*spec.optimizers]
    for _, schedule in spec.schedules:
        made += [stage for track in schedule for stage in track.stages]
    parts = [
        (name, part)
        for each in made
        for name, value in each.arguments
        for part in (value if isinstance(value, tuple) else (value,))
    ]
    for name, value in parts:
        if not isinstance(value, Hparam) or value.name in arguments or takes_more:
            continue
        near = nearest(value.name, arguments)
        raise OptimizerOptionError(
            f"`{name}` is to come from the configuration, and "
            f"`{class_.name}.__init__` has no argument `{value.name}`",
            where=where,
            accepted=f"one of {listing(arguments)}, or a number",
            todo=(
                f"did you mean hparams.{near}?"
                if near
                else f"add the argument, or give a number: {name}=VALUE"
            ),
        )


def _check_monitors(spec: OptimSpec, class_: ast.ClassDef, where: str) -> None:
    names, complete = logged_names(class_)
    tracks = [track for _, schedule in spec.schedules for track in schedule]
    for monitor in filter(None, (track.monitor for track in tracks)):
        # Reductions of one metric are logged under longer names.
        plain = monitor.removesuffix("_epoch").removesuffix("_step")
        if not complete or {monitor, plain} & names:
            continue
        near = nearest(monitor, names)
        raise OptimizerOptionError(
            f"`{class_.name}` never logs `{monitor}`, which the schedule is to watch",
            where=where,
            accepted=listing(sorted(names)),
            todo=(
                f"did you mean --monitor {near}?"
                if near
                else f'log it: self.log("{monitor}", value)'
            ),
        )


def _check_steps(spec: OptimSpec, class_: ast.ClassDef, where: str) -> None:
    """Refuse several optimizers that the module's steps would not serve."""
    labels = [optimizer.label for optimizer in spec.optimizers]
    if is_manual(class_):
        if calls_optimizers(class_):
            return
        names = ", ".join(f"{label}_optimizer" for label in labels)
        raise OptimizerOptionError(
            f"`{class_.name}` optimizes manually, and never asks for its optimizers",
            where=where,
            accepted=f"{names} = self.optimizers() in training_step, then for each "
            "of them zero_grad(), self.manual_backward(loss) and step()",
        )
    losses = returned_losses(class_)
    if losses is None or not set(labels) <= losses:
        pairs = ", ".join(f'"{label}": {label}_loss' for label in labels)
        raise OptimizerOptionError(
            f"{len(labels)} optimizers, and `{class_.name}.training_step` does not "
            "return a loss for each",
            where=where,
            accepted=f"return {{{pairs}}}  # the trainer steps each by its own loss",
            todo="paste that into training_step; or set "
            "self.automatic_optimization = False in __init__ and step them yourself",
        )
