"""From the options of a command to a specification: what is not said stays as it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightgen.errors import OptimizerOptionError, did_you_mean
from lightgen.optim.recipes import RECIPES
from lightgen.optim.rules import check_spec
from lightgen.optim.schedule import (
    Schedule,
    check_track,
    format_schedule,
    parse_schedule,
    read_track_option,
)
from lightgen.optim.selector import check_selector
from lightgen.optim.spec import (
    GroupSpec,
    OptimizerSpec,
    OptimSpec,
    format_optimizer,
    from_record,
    parse_optimizer,
    read_argument,
    with_arguments,
)
from lightgen.optim.text import Piece
from lightgen.optim.values import (
    Hparam,
    Value,
    read_factor,
    read_value,
    write_value,
)

DEFAULT = "adamw:lr=hparams.lr"
_SPEC_KEYS = (
    "optimizer",
    "schedule",
    "no_decay",
    "lr_scale",
    "layer_decay",
    "layers",
    "freeze",
)


@dataclass(frozen=True)
class OptimizerOptions:
    """The optimizer options of a command line; None or empty where nothing was said."""

    optimizer: Sequence[str] = ()
    lr: str | None = None
    weight_decay: str | None = None
    opt: Sequence[str] = ()
    from_config: str | None = None
    no_decay: str | None = None
    lr_scale: Sequence[str] = ()
    layer_decay: str | None = None
    layers: str | None = None
    freeze: Sequence[str] = ()
    schedule: Sequence[str] = ()
    interval: str | None = None
    monitor: str | None = None
    mode: str | None = None
    strict: bool | None = None
    recipe: str | None = None
    spec: Path | None = None

    @property
    def given(self) -> bool:
        """Whether anything was said."""
        return self != OptimizerOptions()


def resolve(options: OptimizerOptions, former: OptimSpec | None) -> OptimSpec:
    """Return the specification that the options ask for.

    Args:
        options: What was said.
        former: The specification so far; None for a new block.

    Raises:
        OptimizerOptionError: An option cannot be read, or two contradict.
        UnknownOptimizerError: An option names something that does not exist.
    """
    spec = _start(options, former)
    spec = _with_optimizers(options, spec)
    spec = _with_schedules(options, spec)
    spec = replace(
        spec,
        groups=_groups(options, spec.groups),
        freeze=_selectors(options.freeze, "option --freeze", spec.freeze),
    )
    check_spec(spec)
    return spec


def as_options(spec: OptimSpec) -> list[str]:
    """Return the words of a command line that ask for a specification."""
    words: list[str] = []
    for optimizer in spec.optimizers:
        argument = optimizer.entry.argument("lr")
        default = argument.default if argument is not None else None
        if isinstance(default, (int, float)) and optimizer.value("lr") is None:
            # Unsaid, it would come from the configuration.
            optimizer = with_arguments(optimizer, {"lr": default})
        words += ["--optimizer", format_optimizer(optimizer)]
    for label, schedule in spec.schedules:
        if schedule:
            text = format_schedule(schedule)
            words += ["--schedule", f"{label}={text}" if label else text]
    groups = spec.groups
    if groups.no_decay:
        words += ["--no-decay", ",".join(groups.no_decay)]
    for selector, factor in groups.lr_scale:
        words += ["--lr-scale", f"{selector}={write_value(factor)}"]
    if groups.layer_decay is not None:
        words += ["--layer-decay", write_value(groups.layer_decay)]
        words += ["--layers", groups.layers]
    for selector in spec.freeze:
        words += ["--freeze", selector]
    return words


def _start(options: OptimizerOptions, former: OptimSpec | None) -> OptimSpec:
    if options.recipe is not None and options.spec is not None:
        raise OptimizerOptionError(
            "a recipe and a file with a specification",
            where="options --recipe, --spec",
            accepted="one of the two",
        )
    if options.recipe is not None:
        recipe = RECIPES.get(options.recipe)
        if recipe is None:
            raise OptimizerOptionError(
                f"there is no recipe `{options.recipe}`",
                where="option --recipe",
                accepted=", ".join(RECIPES),
                todo=did_you_mean(options.recipe, RECIPES),
            )
        return from_record(recipe.record)
    if options.spec is not None:
        return _read_spec(options.spec)
    return former or OptimSpec((parse_optimizer(DEFAULT),))


def _with_optimizers(options: OptimizerOptions, spec: OptimSpec) -> OptimSpec:
    optimizers = spec.optimizers
    if options.optimizer:
        kept = _from_config(optimizers) if len(options.optimizer) == 1 else {}
        optimizers = tuple(
            _keeping(parse_optimizer(text), kept) for text in options.optimizer
        )
    changes = _changes(options)
    if changes:
        if len(optimizers) > 1:
            raise OptimizerOptionError(
                f"`{next(iter(changes))}` for which of {len(optimizers)} optimizers?",
                where="options --lr, --weight-decay, --opt, --from-config",
                accepted="the value inside --optimizer, as in g=adam:lr=2e-4@generator",
            )
        entry = optimizers[0].entry
        values: dict[str, Value] = {}
        for name, text in changes.items():
            where = f"option --{name.replace('_', '-')}"
            if name not in ("lr", "weight_decay"):
                where = "option --opt"
            values[name] = read_argument(
                entry, Piece.of(name, where), Piece.of(text, where)
            )
        optimizers = (with_arguments(optimizers[0], values),)
    labels = {optimizer.label for optimizer in optimizers} | {""}
    schedules = tuple(pair for pair in spec.schedules if pair[0] in labels)
    return replace(spec, optimizers=optimizers, schedules=schedules)


def _changes(options: OptimizerOptions) -> dict[str, str]:
    changes = {}
    for text in options.opt:
        name, value = Piece.of(text, "option --opt").partition("=")
        if value is None:
            raise name.error(f"`{text}` sets nothing", accepted="KEY=VALUE")
        changes[name.text] = value.text
    if options.lr is not None:
        changes["lr"] = options.lr
    if options.weight_decay is not None:
        changes["weight_decay"] = options.weight_decay
    changes |= {name: f"hparams.{name}" for name in _words(options.from_config)}
    return changes


def _from_config(optimizers: tuple[OptimizerSpec, ...]) -> dict[str, Value]:
    """Return what comes from the configuration, which another optimizer should keep."""
    pairs = [pair for each in optimizers for pair in each.arguments]
    return {name: value for name, value in pairs if isinstance(value, Hparam)}


def _keeping(optimizer: OptimizerSpec, kept: dict[str, Value]) -> OptimizerSpec:
    given = dict(optimizer.arguments)
    more = {
        name: value
        for name, value in kept.items()
        if name not in given and optimizer.entry.has(name)
    }
    return with_arguments(optimizer, more)


def _with_schedules(options: OptimizerOptions, spec: OptimSpec) -> OptimSpec:
    schedules = dict(spec.schedules)
    if options.schedule:
        said: dict[str, Schedule] = {}
        for text in options.schedule:
            label, equals, rest = text.partition("=")
            if equals and label.strip().isidentifier():
                said[label.strip()] = parse_schedule(rest)
            else:
                said[""] = parse_schedule(text)
        # Without a label it is for all, and none of the former is left.
        schedules = said if "" in said else {**schedules, **said}
    texts = {"interval": options.interval, "monitor": options.monitor}
    changes: dict[str, Any] = {
        name: read_track_option(name, Piece.of(text, f"option --{name}"))
        for name, text in texts.items()
        if text is not None
    }
    if options.strict is not None:
        changes["strict"] = options.strict
    if changes or options.mode is not None:
        schedules = {
            label: _with_track_options(schedule, changes, options.mode)
            for label, schedule in schedules.items()
        }
    return replace(spec, schedules=tuple(schedules.items()))


def _with_track_options(
    schedule: Schedule, changes: dict[str, Any], mode: str | None
) -> Schedule:
    plateau = {"monitor", "strict"}
    tracks = []
    for track in schedule:
        mine = {
            name: value
            for name, value in changes.items()
            if name not in plateau or track.is_plateau
        }
        if mode is not None and track.is_plateau:
            (stage,) = track.parts[0]
            argument = stage.entry.argument("mode")
            assert argument is not None
            value = read_value(argument, Piece.of(mode, "option --mode"))
            arguments = dict(stage.arguments) | {"mode": value}
            stage = replace(stage, arguments=tuple(arguments.items()))
            mine["parts"] = ((stage,),)
        changed = replace(track, **mine)
        text = format_schedule((changed,))
        check_track(changed, Piece.of(text, "options --schedule, --interval"))
        tracks.append(changed)
    used = plateau.intersection(changes) or mode is not None
    if used and not any(track.is_plateau for track in schedule):
        raise OptimizerOptionError(
            "a metric to watch, and no scheduler that watches one",
            where="options --monitor, --mode, --strict",
            accepted="a schedule with plateau",
            todo="add --schedule plateau, or leave them out",
        )
    return tuple(tracks)


def _groups(options: OptimizerOptions, former: GroupSpec) -> GroupSpec:
    scales = former.lr_scale
    if options.lr_scale:
        scales = tuple(_scale(text) for text in options.lr_scale if text != "none")
    decay = former.layer_decay
    layers = former.layers
    if options.layers is not None:
        layers = "" if options.layers == "none" else options.layers
        if layers:
            check_selector(Piece.of(layers, "option --layers"))
    if options.layer_decay == "none":
        decay, layers = None, ""
    elif options.layer_decay is not None:
        decay = read_factor(
            Piece.of(options.layer_decay, "option --layer-decay"), most=1
        )
    no_decay = former.no_decay
    if options.no_decay is not None:
        no_decay = tuple(_words(options.no_decay))
        for word in no_decay:
            check_selector(Piece.of(word, "option --no-decay"))
    return GroupSpec(no_decay, scales, decay, layers)


def _scale(text: str) -> tuple[str, float]:
    whole = Piece.of(text, "option --lr-scale")
    at = text.rfind("=")  # the selector may hold some: ndim>=2
    if at < 0:
        raise whole.error(f"`{text}` scales nothing", accepted="SELECTOR=FACTOR")
    selector, factor = whole.part(0, at), whole.part(at + 1)
    check_selector(selector)
    return selector.text, read_factor(factor)


def _selectors(
    given: Sequence[str], option: str, former: tuple[str, ...]
) -> tuple[str, ...]:
    if not given:
        return former
    kept = tuple(text for text in given if text != "none")
    for text in kept:
        check_selector(Piece.of(text, option))
    return kept


def _words(text: str | None) -> list[str]:
    words = [word.strip() for word in (text or "").split(",")]
    return [word for word in words if word and word != "none"]


def _read_spec(path: Path) -> OptimSpec:
    """Read a YAML file with the keys of a record."""
    import yaml

    try:
        record = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise OptimizerOptionError(
            f"the specification cannot be read: {error}", where=str(path)
        ) from error
    if not isinstance(record, dict) or "optimizer" not in record:
        raise OptimizerOptionError(
            "the specification names no optimizer",
            where=str(path),
            accepted="a YAML mapping with `optimizer` and, if wanted, "
            + ", ".join(_SPEC_KEYS[1:]),
        )
    for key in record:
        if key not in _SPEC_KEYS:
            raise OptimizerOptionError(
                f"the specification has an unknown key `{key}`",
                where=str(path),
                accepted=", ".join(_SPEC_KEYS),
                todo=did_you_mean(str(key), _SPEC_KEYS),
            )
    return from_record(record, where=str(path))
