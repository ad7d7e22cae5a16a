"""What torch and the runtime refuse, found before any code is written.

Source: every pair of optimizer and scheduler of torch 2.13, constructed and stepped.
"""

from __future__ import annotations

from lightgen.errors import OptimizerOptionError
from lightgen.optim.schedule import Schedule, Stage
from lightgen.optim.spec import OptimizerSpec, OptimSpec


def check_spec(spec: OptimSpec) -> None:
    """Check a whole specification.

    Raises:
        OptimizerOptionError: Two of its parts do not go together.
    """
    _check_labels(spec)
    for optimizer in spec.optimizers:
        _check_optimizer(spec, optimizer)
        schedule = spec.schedule(optimizer.label)
        _check_schedule(schedule)
        for track in schedule:
            for stage in track.stages:
                _check_pair(optimizer, stage)
    if not spec.labelled and len(spec.optimizers) > 1:
        _check_shared(spec)


def _check_labels(spec: OptimSpec) -> None:
    labels = [optimizer.label for optimizer in spec.optimizers]
    if any(labels) and (not all(labels) or len(set(labels)) < len(labels)):
        raise OptimizerOptionError(
            "several optimizers, and not a label of its own for each",
            where="option --optimizer",
            accepted="a label for each (they step on their own) or for none (they share "
            "every step)",
            todo="for example: --optimizer g=adam@generator "
            "--optimizer d=adam@discriminator",
        )
    unknown = [label for label, _ in spec.schedules if label and label not in labels]
    if unknown:
        raise OptimizerOptionError(
            f"a schedule for `{unknown[0]}`, and no optimizer of that label",
            where="option --schedule",
            accepted=", ".join(filter(None, labels)) or "a schedule without a label",
        )
    beside = [label for label, schedule in spec.schedules if len(schedule) > 1]
    if any(labels) and beside:
        raise OptimizerOptionError(
            "an optimizer that steps on its own has one scheduler, and the schedule of "
            f"{f'`{beside[0]}`' if beside[0] else 'each'} has several",
            where="option --schedule",
            accepted="`>` or `+` in a schedule with labels, no `&`",
        )
    if any(labels) and any(not optimizer.select for optimizer in spec.optimizers):
        raise OptimizerOptionError(
            "several optimizers, and one of them without parameters of its own",
            where="option --optimizer",
            accepted="LABEL=NAME@SELECTOR for each",
        )


def _check_optimizer(spec: OptimSpec, optimizer: OptimizerSpec) -> None:
    entry, groups = optimizer.entry, spec.groups
    if not entry.groups and (groups.no_decay or groups.scales_lr):
        raise OptimizerOptionError(
            f"`{entry.name}` takes no parameter groups",
            where="options --no-decay, --lr-scale, --layer-decay",
            accepted="one group of all parameters",
            todo="leave them out (`none` clears one), or choose another optimizer",
        )
    if groups.no_decay and not entry.has("weight_decay"):
        raise OptimizerOptionError(
            f"`{entry.name}` has no weight decay to leave out",
            where="option --no-decay",
            todo="leave it out, or choose another optimizer",
        )
    if entry.dims and not optimizer.select:
        raise OptimizerOptionError(
            f"`{entry.name}` takes parameters of {entry.dims} dimensions only",
            where="option --optimizer",
            accepted=f"{entry.name}@ndim=={entry.dims}, and an optimizer for the rest",
            todo="for example: --recipe muon-adamw",
        )
    if optimizer.value("fused") is True and optimizer.value("foreach") is True:
        raise OptimizerOptionError(
            "`fused` and `foreach` exclude each other",
            where="option --optimizer",
            accepted="one of them",
        )
    still = not optimizer.value("momentum") or bool(optimizer.value("dampening"))
    if entry.name == "sgd" and optimizer.value("nesterov") is True and still:
        raise OptimizerOptionError(
            "`nesterov` needs a momentum and no dampening",
            where="option --optimizer",
            accepted="sgd:momentum=0.9,nesterov=true",
        )
    if (groups.layer_decay is None) != (not groups.layers):
        raise OptimizerOptionError(
            "`--layer-decay` and `--layers` need each other",
            where="options --layer-decay, --layers",
            accepted='for example: --layer-decay 0.75 --layers "backbone.blocks.*"',
        )


def _check_schedule(schedule: Schedule) -> None:
    for track in schedule:
        if track.is_plateau and not track.monitor:
            raise OptimizerOptionError(
                "`plateau` needs a metric to watch",
                where="option --schedule",
                accepted="a metric that the module logs",
                todo="for example: --monitor val_loss",
            )
        if track.monitor and not track.is_plateau:
            raise OptimizerOptionError(
                f"`monitor={track.monitor}`, and no scheduler that watches a metric",
                where="option --schedule",
                accepted="a monitor with plateau only",
            )


def _check_pair(optimizer: OptimizerSpec, stage: Stage) -> None:
    cycles = (
        stage.entry.has("cycle_momentum") and stage.value("cycle_momentum") is not False
    )
    if cycles and not optimizer.entry.has_momentum:
        raise OptimizerOptionError(
            f"`{stage.name}` cycles the momentum, and `{optimizer.name}` has none",
            where="options --optimizer, --schedule",
            accepted=f"{stage.name}:cycle_momentum=false",
            todo="add that, or choose an optimizer with `momentum` or `betas`",
        )


def _check_shared(spec: OptimSpec) -> None:
    missing = [each for each in spec.optimizers[:-1] if not each.select]
    if missing or spec.optimizers[-1].select:
        raise OptimizerOptionError(
            "optimizers that share every step divide the parameters among them",
            where="option --optimizer",
            accepted="a selector for each but the last, which takes the rest",
            todo='for example: --optimizer "muon@ndim==2" --optimizer adamw',
        )
    for optimizer in spec.optimizers:
        if not optimizer.entry.groups or optimizer.entry.closure:
            raise OptimizerOptionError(
                f"`{optimizer.name}` cannot share its steps with another optimizer",
                where="option --optimizer",
                accepted="any optimizer but lbfgs",
            )
