"""Durations as code: what a block must know of the run's length, and how it asks."""

from __future__ import annotations

from dataclasses import dataclass, field

from lightgen.optim.entries import Interval
from lightgen.optim.schedule import Stage, Track
from lightgen.optim.values import Duration, Value, number_text, python_value

_TOTAL = {"step": "total_steps", "epoch": "total_epochs"}
_GUARDED_STEPS = """\
total_steps = self.trainer.estimated_stepping_batches
if total_steps == float("inf"):
    raise MisconfigurationException(
        "the learning rate schedule must know the length of the run: "
        "set trainer.max_epochs or trainer.max_steps"
    )"""
_GUARDED_EPOCHS = """\
total_epochs = self.trainer.max_epochs
if total_epochs is None or total_epochs < 1:
    raise MisconfigurationException(
        "the learning rate schedule must know the length of the run: "
        "set trainer.max_epochs"
    )"""
_ERROR_IMPORT = (
    "from lightgen_runtime.utilities.exceptions import MisconfigurationException"
)
_STEPS_PER_EPOCH = "steps_per_epoch = max(1, total_steps // total_epochs)"


@dataclass
class Lengths:
    """The lengths that one block uses.

    Attributes:
        needs: Which totals, of "total_steps", "total_epochs" and "steps_per_epoch".
        named: Statements that name the length of a stage, in order.
    """

    needs: set[str] = field(default_factory=set)
    named: dict[str, str] = field(default_factory=dict)

    def statements(self) -> list[str]:
        """Return what has to stand before the schedulers."""
        statements = []
        per_epoch = "steps_per_epoch" in self.needs
        if per_epoch or "total_steps" in self.needs:
            statements.append(_GUARDED_STEPS)
        if per_epoch or "total_epochs" in self.needs:
            statements.append(_GUARDED_EPOCHS)
        if per_epoch:
            statements.append(_STEPS_PER_EPOCH)
        return [*statements, *(f"{name} = {text}" for name, text in self.named.items())]

    @property
    def imports(self) -> list[str]:
        """What the statements need at the top of the file."""
        return [_ERROR_IMPORT] if self.needs else []

    def total(self, interval: Interval) -> str:
        """Return the length of the whole run."""
        self.needs.add(_TOTAL[interval])
        return _TOTAL[interval]

    def duration(self, duration: Duration, interval: Interval) -> str:
        """Return a length in steps of a scheduler with this interval."""
        amount = duration.amount
        if duration.unit == "%":
            share = number_text(amount / 100)
            return f"max(1, round({share} * {self.total(interval)}))"
        if duration.unit == "ep" and interval == "step":
            self.needs.add("steps_per_epoch")
            return f"{amount} * steps_per_epoch" if amount != 1 else "steps_per_epoch"
        return str(amount)

    def value(self, value: Value, interval: Interval) -> str:
        """Return any argument's value as code."""
        if isinstance(value, Duration):
            return self.duration(value, interval)
        if isinstance(value, tuple) and value and isinstance(value[0], Duration):
            texts = [self.duration(part, interval) for part in value]
            return "[\n" + "".join(f"    {text},\n" for text in texts) + "]"
        return python_value(value)

    def clock(self, track: Track) -> Clock:
        """Return the lengths of one track; a sequence's are named, one for each part."""
        names: list[str] = []
        for part in track.parts if len(track.parts) > 1 else ():
            length = next((s.length for s in part if s.length is not None), None)
            if length is None:
                text = f"max(1, {' - '.join([self.total(track.interval), *names])})"
            else:
                text = self.duration(length, track.interval)
            names.append(self._named(part[0].name, text, track.interval, names))
        return Clock(self, track, names)

    def _named(
        self, stage: str, text: str, interval: Interval, taken: list[str]
    ) -> str:
        """Name a length; tracks that have the same one share its name."""
        unit = "steps" if interval == "step" else "epochs"
        name, number = f"{stage}_{unit}", 2
        while self.named.get(name, text) != text or name in taken:
            name, number = f"{stage}_{unit}_{number}", number + 1
        self.named[name] = text
        return name


@dataclass
class Clock:
    """The lengths of one track.

    Attributes:
        lengths: Those of the whole block.
        track: The track.
        names: Variable with the length of each part of a sequence.
    """

    lengths: Lengths
    track: Track
    names: list[str]

    def span(self, stage: Stage) -> str:
        """Return how long a stage runs, for the argument that wants to know."""
        if not stage.entry.span or stage.value(stage.entry.span) is not None:
            return ""
        for part, name in zip(self.track.parts, self.names, strict=False):
            if stage in part:
                return name
        if stage.length is not None:
            return self.lengths.duration(stage.length, self.track.interval)
        return self.lengths.total(self.track.interval)

    def milestones(self) -> list[str]:
        """Return where each part but the first begins."""
        return [" + ".join(self.names[:end]) for end in range(1, len(self.names))]
