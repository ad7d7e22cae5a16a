"""What a block is generated from: the options of one `configure_optimizers`, resolved.

A record is plain JSON: it lies in `.lightgen/state.json`, and a YAML file given with
`--spec` has the same keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightgen.errors import OptimizerOptionError
from lightgen.optim.catalogue import OPTIMIZERS, find_optimizer
from lightgen.optim.entries import Optimizer
from lightgen.optim.schedule import Schedule, format_schedule, parse_schedule
from lightgen.optim.selector import check_selector
from lightgen.optim.text import Piece
from lightgen.optim.values import Value, read_factor, read_value, write_value


@dataclass(frozen=True)
class OptimizerSpec:
    """One optimizer.

    Attributes:
        name: Its name in the catalogue.
        arguments: What was set, by argument.
        label: Name among several optimizers that step on their own; else "".
        select: Selector of its parameters; "" for all that no other takes.
    """

    name: str
    arguments: tuple[tuple[str, Value], ...] = ()
    label: str = ""
    select: str = ""

    @property
    def entry(self) -> Optimizer:
        """What the catalogue says of it."""
        return OPTIMIZERS[self.name]

    def value(self, name: str) -> Value:
        """Return what an argument is set to, None if it is not."""
        return dict(self.arguments).get(name)


@dataclass(frozen=True)
class GroupSpec:
    """How parameters are put into groups.

    Attributes:
        no_decay: "bias", "norm", "embedding" or selectors: what gets no weight decay.
        lr_scale: Factor of the learning rate by selector.
        layer_decay: Factor of the learning rate from each layer to the one below.
        layers: Glob of the layers' module names, for `layer_decay`.
    """

    no_decay: tuple[str, ...] = ()
    lr_scale: tuple[tuple[str, float], ...] = ()
    layer_decay: float | None = None
    layers: str = ""

    @property
    def scales_lr(self) -> bool:
        """Whether groups differ in their learning rate."""
        return bool(self.lr_scale) or self.layer_decay is not None


@dataclass(frozen=True)
class OptimSpec:
    """A whole block.

    Attributes:
        optimizers: One; several with labels, each stepping on its own; or several
            without, which share every step.
        schedules: Schedule by label; "" for every optimizer without one of its own.
        groups: How parameters are grouped.
        freeze: Selectors of what is not trained.
    """

    optimizers: tuple[OptimizerSpec, ...]
    schedules: tuple[tuple[str, Schedule], ...] = ()
    groups: GroupSpec = GroupSpec()
    freeze: tuple[str, ...] = ()

    @property
    def labelled(self) -> bool:
        """Whether the optimizers step on their own."""
        return bool(self.optimizers[0].label)

    def schedule(self, label: str) -> Schedule:
        """Return the schedule of one optimizer."""
        found = dict(self.schedules)
        return found.get(label, found.get("", ()))


def parse_optimizer(text: str, option: str = "option --optimizer") -> OptimizerSpec:
    """Read `[LABEL=]NAME[:KEY=VALUE,...][@SELECTOR]`.

    Raises:
        OptimizerOptionError: It cannot be read, or a value is out of range.
        UnknownOptimizerError: It names something that does not exist.
    """
    head, select = Piece.of(text, option).partition("@")
    name, items = head.partition(":")
    label = ""
    first, second = name.partition("=")
    if second is not None:
        label, name = first.text, second
        if not label.isidentifier():
            raise first.error(
                f"`{label}` cannot be a label",
                accepted="an identifier, which code can use",
            )
    entry = find_optimizer(name.text, name.where)
    arguments: dict[str, Value] = {}
    for item in items.split(",") if items is not None else ():
        key, value = item.partition("=")
        if value is None:
            raise item.error(f"`{item.text}` sets nothing", accepted="KEY=VALUE")
        arguments[key.text] = read_argument(entry, key, value)
    if select is not None:
        check_selector(select)
    return OptimizerSpec(
        entry.name, _ordered(entry, arguments), label, select.text if select else ""
    )


def read_argument(entry: Optimizer, key: Piece, value: Piece) -> Value:
    """Read the value of one argument of an optimizer."""
    argument = entry.argument(key.text)
    if argument is None:
        known = [found.name for found in entry.arguments]
        todo = f"see: lightgen optimizers {entry.name}"
        raise key.unknown(f"`{entry.name}` has no argument", known, todo)
    return read_value(argument, value)


def with_arguments(
    optimizer: OptimizerSpec, changes: Mapping[str, Value]
) -> OptimizerSpec:
    """Return the optimizer with other arguments set."""
    merged = dict(optimizer.arguments) | dict(changes)
    return OptimizerSpec(
        optimizer.name,
        _ordered(optimizer.entry, merged),
        optimizer.label,
        optimizer.select,
    )


def format_optimizer(optimizer: OptimizerSpec) -> str:
    """Write an optimizer in one canonical form, which reads back as the same."""
    items = [f"{key}={write_value(value)}" for key, value in optimizer.arguments]
    label = f"{optimizer.label}=" if optimizer.label else ""
    rest = f":{','.join(items)}" if items else ""
    select = f"@{optimizer.select}" if optimizer.select else ""
    return f"{label}{optimizer.name}{rest}{select}"


def to_record(spec: OptimSpec) -> dict[str, Any]:
    """Return the specification as plain JSON, without what is at its default."""
    groups = spec.groups
    record: dict[str, Any] = {
        "optimizer": [format_optimizer(each) for each in spec.optimizers],
        "schedule": {
            label: format_schedule(schedule) for label, schedule in spec.schedules
        },
        "no_decay": list(groups.no_decay),
        "lr_scale": dict(groups.lr_scale),
        "layer_decay": groups.layer_decay,
        "layers": groups.layers,
        "freeze": list(spec.freeze),
    }
    return {key: value for key, value in record.items() if value}


def from_record(
    record: Mapping[str, Any], where: str = "the project's records"
) -> OptimSpec:
    """Return the specification that `to_record`, or a person, wrote down.

    Args:
        record: Where one text stands for a list of texts, it may stand alone.
        where: What it is read from, for messages.

    Raises:
        OptimizerOptionError: It cannot be read.
        UnknownOptimizerError: It names something that does not exist.
    """
    optimizers, no_decay, freeze, layers = (
        _texts(record, key, where)
        for key in ("optimizer", "no_decay", "freeze", "layers")
    )
    schedules = tuple(
        (label.text, parse_schedule(text.text, text.option))
        for label, text in _pairs(record, "schedule", where)
    )
    scales = tuple(
        (selector.text, read_factor(factor))
        for selector, factor in _pairs(record, "lr_scale", where)
    )
    decay = record.get("layer_decay")
    if decay is not None:
        decay = read_factor(Piece.of(str(decay), f"{where}, `layer_decay`"), most=1)
    for selector in (*no_decay, *freeze, *layers):
        check_selector(selector)
    for selector, _ in _pairs(record, "lr_scale", where):
        check_selector(selector)
    return OptimSpec(
        tuple(parse_optimizer(each.text, each.option) for each in optimizers),
        schedules,
        GroupSpec(
            tuple(word.text for word in no_decay),
            scales,
            decay,
            layers[0].text if layers else "",
        ),
        tuple(selector.text for selector in freeze),
    )


def _texts(record: Mapping[str, Any], key: str, where: str) -> list[Piece]:
    found = record.get(key, ())
    listed = [found] if isinstance(found, str) else found
    if not isinstance(listed, (list, tuple)) or not all(
        isinstance(text, str) for text in listed
    ):
        raise OptimizerOptionError(
            f"`{key}` cannot be {found!r}",
            where=where,
            accepted="a text, or a list of texts",
        )
    return [Piece.of(text, f"{where}, `{key}`") for text in listed]


def _pairs(
    record: Mapping[str, Any], key: str, where: str
) -> list[tuple[Piece, Piece]]:
    found = record.get(key, {})
    mapping = {"": found} if isinstance(found, str) else found
    if not isinstance(mapping, Mapping) or not all(
        isinstance(name, str) and isinstance(value, (str, int, float))
        for name, value in mapping.items()
    ):
        raise OptimizerOptionError(
            f"`{key}` cannot be {found!r}",
            where=where,
            accepted="a mapping: of labels to schedules, or of selectors to factors",
        )
    option = f"{where}, `{key}`"
    return [
        (Piece.of(name, option), Piece.of(str(value), option))
        for name, value in mapping.items()
    ]


def _ordered(
    entry: Optimizer, arguments: Mapping[str, Value]
) -> tuple[tuple[str, Value], ...]:
    order = [argument.name for argument in entry.arguments]
    return tuple(sorted(arguments.items(), key=lambda item: order.index(item[0])))
