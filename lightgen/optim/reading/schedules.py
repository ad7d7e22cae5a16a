"""From schedulers, and the dictionaries around them, to tracks of a schedule."""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace
from typing import Any

from lightgen.optim.arguments import REQUIRED
from lightgen.optim.catalogue import SCHEDULERS
from lightgen.optim.entries import Interval, Scheduler
from lightgen.optim.reading.calls import Call, CallReader
from lightgen.optim.reading.extents import Extent, Extents
from lightgen.optim.reading.problems import InexpressibleError, Remark, is_none, shown
from lightgen.optim.schedule import Stage, Track
from lightgen.optim.values import Duration, Hparam, Value

_HOME = "torch.optim.lr_scheduler"
_KEYS = ("scheduler", "interval", "frequency", "monitor", "strict", "name")
_ALL_KEYS = {*_KEYS, "reduce_on_plateau"}
_ENTRIES = {entry.path: entry for entry in SCHEDULERS.values() if not entry.preset}
"""A class by its path, as the entry that its own name means."""


@dataclass
class Config:
    """A scheduler and what was said of it.

    Attributes:
        call: The outermost scheduler.
        said: Interval, frequency and the like.
        where: What it is read from.
    """

    call: ast.Call
    said: dict[str, Any]
    where: ast.expr


class ScheduleReader:
    """Reads schedulers.

    Args:
        calls: Reads constructors.
    """

    def __init__(self, calls: CallReader) -> None:
        self.calls = calls
        self.values = calls.values
        self.extents = Extents(calls.values)

    def config(self, node: ast.expr, monitor: ast.expr | None) -> Config:
        """Read a scheduler, or a dictionary that holds one.

        Args:
            node: It.
            monitor: What is said of it outside of the dictionary.
        """
        said: dict[str, Any] = {}
        where = node
        if monitor is not None:
            said["monitor"] = self.values.value(monitor)
        if isinstance(node, ast.Dict):
            inner: ast.expr | None = None
            for key, value in zip(node.keys, node.values, strict=True):
                name = key.value if isinstance(key, ast.Constant) else None
                if name not in _ALL_KEYS:
                    raise InexpressibleError(
                        key or value,
                        f"the scheduler's dictionary has the key {name!r}",
                        ", ".join(_KEYS),
                    )
                if name == "scheduler":
                    inner = value
                elif not (name == "monitor" and is_none(value)):
                    said[str(name)] = self._said(str(name), value)
            if inner is None:
                raise InexpressibleError(
                    node, "a scheduler's dictionary without a scheduler", '"scheduler"'
                )
            node = inner
        if not isinstance(node, ast.Call):
            raise InexpressibleError(
                node,
                f"`{shown(node)}` is no scheduler that can be read",
                f"a call of a class of {_HOME}, in the method itself",
            )
        return Config(node, said, where)

    def _said(self, name: str, node: ast.expr) -> Any:
        value = self.values.value(node)
        kinds = {"frequency": int, "strict": bool, "reduce_on_plateau": bool}
        right = isinstance(value, kinds.get(name, str))
        if name == "interval":
            right = value in ("step", "epoch")
        if not right or value == "" or (name == "frequency" and value < 1):
            raise InexpressibleError(
                node,
                f'"{name}" is `{shown(node)}`',
                "a literal: a text, for frequency a whole number, for strict a flag",
            )
        return value

    def optimizer_of(self, config: Config) -> ast.expr | None:
        """Return the optimizer that a scheduler drives."""
        call = self.calls.read(config.call)
        found = call.arguments.get("optimizer")
        inner = call.arguments.get("schedulers")
        if found is None and isinstance(inner, (ast.List, ast.Tuple)) and inner.elts:
            first = inner.elts[0]
            if isinstance(first, ast.Call):
                return self.calls.read(first).arguments.get("optimizer")
        return found

    def track(self, config: Config, lr: Value) -> Track:
        """Read one track.

        Args:
            config: The scheduler and what was said of it.
            lr: The optimizer's learning rate.
        """
        said = dict(config.said)
        interval: Interval = said.get("interval", "epoch")
        call = self.calls.read(config.call)
        if call.path == f"{_HOME}.SequentialLR":
            parts = self._sequence(call, interval, lr)
        elif call.path == f"{_HOME}.ChainedScheduler":
            stages = [
                self._stage(inner, interval, lr, None) for inner in self._inner(call)
            ]
            parts = (tuple(stages),)
        else:
            parts = ((self._stage(call, interval, lr, None),),)
        track = Track(parts, interval)
        if track.is_plateau and "monitor" not in said:
            raise InexpressibleError(
                config.where,
                "`ReduceLROnPlateau` is told no metric to watch",
                '{"scheduler": scheduler, "monitor": "val_loss"}',
            )
        if not track.is_plateau:
            if said.get("reduce_on_plateau"):
                raise InexpressibleError(
                    config.where,
                    f"`{shown(config.call.func)}` is to follow a metric",
                    "ReduceLROnPlateau",
                )
            if "monitor" in said:
                metric = said.pop("monitor")
                self.values.notes.append(
                    Remark(
                        config.where.lineno,
                        f"no scheduler watches `{metric}`, so that is left out",
                    )
                )
        return replace(
            track,
            frequency=said.get("frequency", 1),
            monitor=said.get("monitor", ""),
            strict=said.get("strict", True),
            label=said.get("name", ""),
        )

    # ---- stages ----

    def _inner(self, call: Call) -> list[Call]:
        found = call.arguments.get("schedulers")
        if not isinstance(found, (ast.List, ast.Tuple)):
            raise InexpressibleError(
                call.node, "schedulers that are not listed here", "[first, second]"
            )
        calls = []
        for node in found.elts:
            if not isinstance(node, ast.Call):
                raise InexpressibleError(
                    node,
                    f"`{shown(node)}` is no scheduler that can be read",
                    f"a call of a class of {_HOME}",
                )
            calls.append(self.calls.read(node))
        return calls

    def _sequence(
        self, call: Call, interval: Interval, lr: Value
    ) -> tuple[tuple[Stage, ...], ...]:
        inner = self._inner(call)
        node = call.arguments.get("milestones")
        starts = node.elts if isinstance(node, (ast.List, ast.Tuple)) else []
        if len(starts) != len(inner) - 1:
            raise InexpressibleError(
                node or call.node,
                "milestones that do not say where each scheduler begins",
                "one for each scheduler but the first",
            )
        before = Extent()
        parts = []
        for scheduler, start in zip(inner, starts, strict=False):
            end = self.extents.sum(start, interval)
            length = end.plus(before, -1)
            if length.duration is None:
                raise InexpressibleError(
                    start,
                    f"from the milestone before to `{shown(start)}` is no one length",
                    "lengths of one kind: steps, epochs or shares of the run",
                )
            parts.append((self._stage(scheduler, interval, lr, length),))
            before = end
        rest = Extent(whole=True).plus(before, -1)
        parts.append((self._stage(inner[-1], interval, lr, rest),))
        return tuple(parts)

    def _stage(
        self, call: Call, interval: Interval, lr: Value, length: Extent | None
    ) -> Stage:
        """Read one scheduler; `length` is how long it lasts in a sequence."""
        entry = _ENTRIES.get(call.path)
        if entry is None:
            raise InexpressibleError(
                call.node,
                f"`{shown(call.node.func)}` is no scheduler that options can name",
                f"one of {_HOME}: lightgen optimizers lists them",
            )
        found: dict[str, Value] = {}
        for argument in entry.arguments:
            node = call.arguments.get(argument.name)
            if node is None:
                continue
            if argument.kind == "duration" and not is_none(node):
                if argument.name != entry.span:
                    found[argument.name] = self._duration(node, interval)
            elif argument.kind == "durations":
                found[argument.name] = self._durations(node, interval)
            elif argument.name == "max_lr" and self._is_rate(node, lr):
                continue
            elif not is_none(node) or argument.default is not None:
                written = call.in_file[argument.name]
                found[argument.name] = self.values.read(argument, node, written)
        for name in ("epochs", "steps_per_epoch"):  # one rise and fall in so many steps
            if name in found and "total_steps" in call.arguments:
                found.pop(name)
        span: Duration | Hparam | None = None
        if entry.span:
            span = self._span(call, entry, interval, found, length)
        last = length is None or length.whole
        kept = None if length is None or length.whole else length.duration
        if isinstance(span, Hparam):
            found[entry.span] = span
        elif span is not None and last and (length is None or span.unit != "%"):
            kept = span
        elif span is not None and span != kept:
            found[entry.span] = span
        return _named(entry, found, kept)

    def _span(
        self,
        call: Call,
        entry: Scheduler,
        interval: Interval,
        found: dict[str, Value],
        length: Extent | None,
    ) -> Duration | Hparam | None:
        """Read how long a scheduler is to run; None for as long as it lasts."""
        node = call.arguments.get(entry.span)
        if node is None or is_none(node):
            epochs, per_epoch = (
                found.pop(name, None) for name in ("epochs", "steps_per_epoch")
            )
            if isinstance(epochs, int) and isinstance(per_epoch, int):
                return Duration(epochs * per_epoch, "st")
            argument = entry.argument(entry.span)
            assert argument is not None
            if argument.default in (REQUIRED, None):
                raise InexpressibleError(
                    call.node,
                    f"`{entry.class_name}` is not told how long it runs",
                    f"{entry.span}=self.trainer.estimated_stepping_batches",
                )
            extent: Extent | Hparam = Extent(
                (("st" if interval == "step" else "ep", argument.default),)  # type: ignore[arg-type]
            )
        else:
            extent = self.extents.read(node, interval)
        if isinstance(extent, Hparam) or extent == length:
            return None if extent == length else extent  # type: ignore[return-value]
        if extent == Extent(whole=True):
            return None if length is None else Duration(100, "%")
        if extent.duration is None:
            raise InexpressibleError(
                node or call.node,
                f"`{shown(node or call.node)}` is not how long the scheduler lasts",
                "its own length, or what is left of the run",
            )
        return extent.duration

    def _duration(self, node: ast.expr, interval: Interval) -> Duration | Hparam:
        extent = self.extents.read(node, interval)
        if isinstance(extent, Hparam):
            return extent
        if extent == Extent(whole=True):
            return Duration(100, "%")
        if extent.duration is None:
            raise InexpressibleError(
                node, f"`{shown(node)}` is no one length", "a whole number above 0"
            )
        return extent.duration

    def _durations(self, node: ast.expr, interval: Interval) -> tuple[Duration, ...]:
        if not isinstance(node, (ast.List, ast.Tuple)):
            raise InexpressibleError(
                node, f"`{shown(node)}` is no list that can be read", "[30, 60]"
            )
        found = []
        for part in node.elts:
            duration = self._duration(part, interval)
            if isinstance(duration, Hparam):
                raise InexpressibleError(
                    part, f"`{shown(part)}` is one of several", "whole numbers"
                )
            found.append(duration)
        return tuple(found)

    def _is_rate(self, node: ast.expr, lr: Value) -> bool:
        """Tell whether a highest rate is the optimizer's own."""
        if isinstance(node, ast.ListComp):
            (part,) = node.generators
            return ast.unparse(node.elt) == f"{ast.unparse(part.target)}['lr']" and (
                ast.unparse(part.iter).endswith(".param_groups")
            )
        return bool(self.values.value(node) == lr)


def _named(entry: Scheduler, found: dict[str, Value], length: Duration | None) -> Stage:
    """Call a stage by the name that says most."""
    start, end = found.get("start_factor"), found.get("end_factor", 1.0)
    name = entry.name
    if entry.class_name == "LinearLR" and start is not None:
        if start == 1 and end != 1:
            name = "decay"
        elif start != 1 and end == 1:
            name = "warmup"
    elif entry.class_name == "ConstantLR" and found.get("factor") == 1:
        name = "hold"
    preset = dict(SCHEDULERS[name].preset)
    kept = {n: v for n, v in found.items() if n not in preset or preset[n] != v}
    return Stage(name, tuple(kept.items()), length)
