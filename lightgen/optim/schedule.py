"""The language of schedules: `warmup:5% > cosine:eta_min=1e-6 & plateau`.

    schedule   = track { "&" track }        each steps on its own
    track      = product { ">" product }    one after the other
    product    = stage { "+" stage }        factors multiplied
    stage      = NAME [ ":" item { "," item } ]
    item       = LENGTH | KEY "=" VALUE

A length is `5%` of the run, `500st` (optimizer steps) or `3ep` (epochs); a stage without
one takes what is left. Beside the schedulers' own arguments, any stage may set what
concerns its whole track: `interval`, `frequency`, `monitor`, `strict` and `name`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from lightgen.optim.catalogue import SCHEDULERS, find_scheduler
from lightgen.optim.entries import Interval, Scheduler
from lightgen.optim.text import Piece
from lightgen.optim.values import (
    Duration,
    Value,
    read_duration,
    read_value,
    write_value,
)

_TRACK_KEYS = ("interval", "frequency", "monitor", "strict", "name")
_NAME = re.compile(r"[^,&>+\"\\\n]+")
"""What can be written into a schedule, and into code, as it is."""


@dataclass(frozen=True)
class Stage:
    """One scheduler.

    Attributes:
        name: Its name in the catalogue.
        arguments: What was set, in the order in which it was written.
        length: How long it lasts; None for what is left of the run.
    """

    name: str
    arguments: tuple[tuple[str, Value], ...] = ()
    length: Duration | None = None

    @property
    def entry(self) -> Scheduler:
        """What the catalogue says of it."""
        return SCHEDULERS[self.name]

    def value(self, name: str) -> Value:
        """Return what an argument is set to, by the user or by the name's preset."""
        return self.values.get(name)

    @property
    def values(self) -> dict[str, Value]:
        """All arguments that are set, by the name's preset or by the user."""
        return {**dict(self.entry.preset), **dict(self.arguments)}


@dataclass(frozen=True)
class Track:
    """Schedulers that step together.

    Attributes:
        parts: One after the other, each a product of stages.
        interval: What one step of them is.
        frequency: How many such steps make one of theirs.
        monitor: The metric that a plateau watches.
        strict: Whether a missing metric is an error.
        label: Name for the logged learning rate.
    """

    parts: tuple[tuple[Stage, ...], ...]
    interval: Interval
    frequency: int = 1
    monitor: str = ""
    strict: bool = True
    label: str = ""

    @property
    def stages(self) -> list[Stage]:
        """All stages, in order."""
        return [stage for part in self.parts for stage in part]

    @property
    def is_plateau(self) -> bool:
        """Whether it follows a metric."""
        return self.parts[0][0].name == "plateau"


Schedule = tuple[Track, ...]


def parse_schedule(text: str, option: str = "option --schedule") -> Schedule:
    """Read a schedule; `none` is no track at all.

    Raises:
        OptimizerOptionError: It breaks the grammar or a rule of torch's.
        UnknownOptimizerError: It names something that does not exist.
    """
    if text.strip().lower() in ("none", ""):
        return ()
    whole = Piece.of(text, option)
    return tuple(_track(piece) for piece in whole.split("&"))


def format_schedule(schedule: Schedule) -> str:
    """Write a schedule in one canonical form, which reads back as the same."""
    return " & ".join(_track_text(track) for track in schedule) or "none"


def _track(piece: Piece) -> Track:
    extras: dict[str, str | int | bool] = {}
    parts = []
    for part in piece.split(">"):
        stages = part.split(r"\+(?=\s*[A-Za-z_])")
        parts.append(tuple(_stage(stage, extras) for stage in stages))
    natural: Interval = "epoch"
    if any(s.entry.interval == "step" for part in parts for s in part):
        natural = "step"
    track = Track(tuple(parts), natural)
    if "name" in extras:
        extras["label"] = extras.pop("name")
    track = replace(track, **extras)  # type: ignore[arg-type]
    check_track(track, piece)
    return track


def _stage(piece: Piece, extras: dict[str, str | int | bool]) -> Stage:
    if not piece.text:
        raise piece.error(
            "a scheduler is missing here",
            accepted="NAME or NAME:KEY=VALUE,... between `>`, `+` and `&`",
            todo="see: lightgen optimizers",
        )
    name, rest = piece.partition(":")
    entry = find_scheduler(name.text, name.where)
    arguments: dict[str, Value] = {}
    length: Duration | None = None
    for item in rest.split(",") if rest is not None else ():
        key, value = item.partition("=")
        if value is None:
            length = _length(item, entry, length)
        elif key.text in _TRACK_KEYS:
            extras[key.text] = read_track_option(key.text, value)
        else:
            argument = entry.argument(key.text)
            if argument is None:
                known = [found.name for found in entry.arguments]
                todo = f"see: lightgen optimizers {entry.name}"
                raise key.unknown(f"`{entry.name}` has no argument", known, todo)
            if key.text in arguments:
                raise key.error(f"`{key.text}` is set twice", todo="leave one out")
            arguments[key.text] = read_value(argument, value)
    _check_required(entry, arguments, name)
    return Stage(entry.name, tuple(arguments.items()), length)


def _length(piece: Piece, entry: Scheduler, before: Duration | None) -> Duration:
    length = read_duration(piece.text)
    if length is None or not length.amount or before is not None:
        raise piece.error(
            (
                f"`{piece.text}` is no length"
                if before is None
                else "a second length for one stage"
            ),
            accepted=f"one length such as 5%, 500st or 3ep, or KEY=VALUE with a KEY of "
            f"{', '.join(argument.name for argument in entry.arguments)}",
        )
    return length


def read_track_option(key: str, piece: Piece) -> str | int | bool:
    """Read what concerns a whole track.

    Raises:
        OptimizerOptionError: It cannot be that.
    """
    text = piece.text
    if key == "interval" and text in ("step", "epoch"):
        return text
    if key == "frequency" and text.isdigit() and int(text):
        return int(text)
    if key == "strict" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if key in ("monitor", "name") and _NAME.fullmatch(text):
        return text
    accepted = {
        "interval": "step or epoch",
        "frequency": "a whole number of at least 1",
        "strict": "true or false",
    }
    raise piece.error(f"`{key}` cannot be {text!r}", accepted.get(key, "a name"))


def _check_required(entry: Scheduler, given: dict[str, Value], name: Piece) -> None:
    filled = {entry.span, "max_lr"}
    missing = [
        argument.name
        for argument in entry.arguments
        if argument.default == "required"
        and argument.name not in given
        and argument.name not in filled
    ]
    if missing:
        raise name.error(
            f"`{entry.name}` needs `{missing[0]}`",
            accepted=f"{entry.name}:{missing[0]}=VALUE",
            todo=f"see: lightgen optimizers {entry.name}",
        )


def check_track(track: Track, piece: Piece) -> None:
    """Check that torch can step the schedulers of a track together.

    Raises:
        OptimizerOptionError: It cannot.
    """
    composed = len(track.stages) > 1
    for stage in track.stages:
        if composed and not stage.entry.composes:
            raise piece.error(
                f"`{stage.name}` cannot be part of a sequence or a product: torch has it "
                "follow a metric, and the others a count",
                accepted="`&`, which lets it step on its own",
                todo=f"for example: warmup:5% & {stage.name}",
            )
    if len(track.parts) > 1 and any(len(part) > 1 for part in track.parts):
        raise piece.error(
            "a product cannot be part of a sequence: torch cannot step it there",
            accepted="`>` or `+` in one track, not both",
        )
    for part in track.parts[:-1]:
        if part[0].length is None:
            raise piece.error(
                f"`{part[0].name}` is followed by another, so its length is needed",
                accepted="5% of the run, 500st (optimizer steps) or 3ep (epochs)",
                todo=f"for example: {part[0].name}:5%",
            )
    if track.interval == "epoch":
        lengths = [stage.length for stage in track.stages]
        if any(length and length.unit == "st" for length in lengths):
            raise piece.error(
                "a length in steps, and a scheduler that steps once an epoch",
                accepted="5% or 3ep; or interval=step on the first scheduler",
            )


def _track_text(track: Track) -> str:
    extras: dict[str, str] = {}
    natural = "epoch"
    if any(stage.entry.interval == "step" for stage in track.stages):
        natural = "step"
    if track.interval != natural:
        extras["interval"] = track.interval
    if track.frequency != 1:
        extras["frequency"] = str(track.frequency)
    if track.monitor:
        extras["monitor"] = track.monitor
    if not track.strict:
        extras["strict"] = "false"
    if track.label:
        extras["name"] = track.label
    parts = []
    for number, part in enumerate(track.parts):
        texts = [
            _stage_text(stage, extras if not number and not place else {})
            for place, stage in enumerate(part)
        ]
        parts.append(" + ".join(texts))
    return " > ".join(parts)


def _stage_text(stage: Stage, extras: dict[str, str]) -> str:
    items = [] if stage.length is None else [write_value(stage.length)]
    items += [f"{key}={write_value(value)}" for key, value in stage.arguments]
    items += [f"{key}={value}" for key, value in extras.items()]
    return f"{stage.name}:{','.join(items)}" if items else stage.name
