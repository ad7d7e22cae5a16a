"""From a specification to the text of `configure_optimizers`.

The skeleton is fixed and has one argument a line, so that a later change of one option is
a change of one line: lengths, then optimizer, then scheduler, then what is returned.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lightgen.optim.lengths import Lengths
from lightgen.optim.schedule import Schedule, Stage, Track, format_schedule
from lightgen.optim.selector import is_path
from lightgen.optim.spec import OptimizerSpec, OptimSpec
from lightgen.optim.values import python_value

SCHEDULERS_HOME = "torch.optim.lr_scheduler"
_LINE = 88


@dataclass
class _Made:
    """An optimizer that the block has made, and the dictionaries of its schedulers."""

    label: str
    variable: str
    schedulers: list[str]


def emit(spec: OptimSpec, *, manual: bool = False) -> tuple[str, tuple[str, ...]]:
    """Write the method.

    Args:
        spec: What to write, checked.
        manual: Whether the module steps its optimizers itself; decides how several
            optimizers with labels are returned.

    Returns:
        The method, indented by four spaces, and the imports that it needs at the top of
        its file.
    """
    return _Writer(spec, manual).block()


class _Writer:
    """Collects the statements of one block."""

    def __init__(self, spec: OptimSpec, manual: bool) -> None:
        self.spec = spec
        self.manual = manual
        self.runtime: set[str] = set()
        self.lengths = Lengths()

    def block(self) -> tuple[str, tuple[str, ...]]:
        spec = self.spec
        body: list[str] = []
        for selector in spec.freeze:
            self.runtime.add("freeze")
            body.append(f'freeze(self, "{selector}")')
        parts: list[str] = []
        returned: list[_Made] = []
        if spec.labelled or len(spec.optimizers) == 1:
            for optimizer in spec.optimizers:
                parts += self._optimizer_with_schedule(optimizer, returned)
        else:
            parts += self._shared(returned)
        body += self.lengths.statements()
        body += parts
        body.append(self._return(returned))
        lines = [f"def configure_optimizers(self) -> {self._annotation()}:"]
        lines.append(f'    """{self._title()}"""')
        lines += [f"    {line}" for part in body for line in part.split("\n")]
        imports = ["import torch"]
        if self.runtime:
            names = ", ".join(sorted(self.runtime))
            imports.append(f"from lightgen_runtime.optim import {names}")
        imports += self.lengths.imports
        return "".join(f"    {line}\n" for line in lines), tuple(imports)

    # ---- optimizers ----

    def _optimizer_with_schedule(
        self, optimizer: OptimizerSpec, returned: list[_Made]
    ) -> list[str]:
        prefix = f"{optimizer.label}_" if optimizer.label else ""
        variable = f"{prefix}optimizer"
        parameters = self._parameters(optimizer)
        call = _call(optimizer.entry.path, [parameters, *self._arguments(optimizer)])
        statements = [f"{variable} = {call}"]
        schedule = self.spec.schedule(optimizer.label)
        statements += self._schedulers(optimizer, schedule, prefix, returned)
        return statements

    def _shared(self, returned: list[_Made]) -> list[str]:
        """Several optimizers behind one, which steps them together."""
        spec = self.spec
        self.runtime |= {"CombinedOptimizer", "split_parameters"}
        names = [f"{each.name}_parameters" for each in spec.optimizers]
        selectors = [f'"{each.select}"' for each in spec.optimizers[:-1]]
        split = _call("split_parameters", ["self", *selectors])
        calls = []
        for each, name in zip(spec.optimizers, names, strict=True):
            parameters = name
            if self._groups_decay(each) or spec.groups.scales_lr:
                parameters = self._grouped(each, among=name)
            calls.append(_call(each.entry.path, [parameters, *self._arguments(each)]))
        statements = [
            f"{', '.join(names)} = {split}",
            f"optimizer = {_call('CombinedOptimizer', calls)}",
        ]
        schedule = spec.schedule("")
        statements += self._schedulers(spec.optimizers[0], schedule, "", returned)
        return statements

    def _parameters(self, optimizer: OptimizerSpec) -> str:
        if self._groups_decay(optimizer) or self.spec.groups.scales_lr:
            return self._grouped(optimizer)
        if not optimizer.select:
            return "self.parameters()"
        if is_path(optimizer.select):
            return f"self.{optimizer.select}.parameters()"
        self.runtime.add("select_parameters")
        return _call("select_parameters", ["self", f'"{optimizer.select}"'])

    def _grouped(self, optimizer: OptimizerSpec, among: str = "") -> str:
        groups = self.spec.groups
        self.runtime.add("parameter_groups")
        arguments = ["self"]
        if among:
            arguments.append(f"among={among}")
        elif optimizer.select:
            arguments.append(f'select="{optimizer.select}"')
        if groups.scales_lr:
            arguments.append(f"lr={self._lr(optimizer)}")
        if self._groups_decay(optimizer):
            arguments.append(f"weight_decay={self._weight_decay(optimizer)}")
            arguments.append(f"no_decay={_strings(groups.no_decay)}")
        if groups.lr_scale:
            pairs = [(f'"{s}"', python_value(f)) for s, f in groups.lr_scale]
            arguments.append(f"lr_scale={_mapping(pairs)}")
        if groups.layer_decay is not None:
            arguments.append(f"layer_decay={python_value(groups.layer_decay)}")
            arguments.append(f'layers="{groups.layers}"')
        return _call("parameter_groups", arguments)

    def _groups_decay(self, optimizer: OptimizerSpec) -> bool:
        return bool(self.spec.groups.no_decay) and optimizer.entry.has("weight_decay")

    def _arguments(self, optimizer: OptimizerSpec) -> list[str]:
        grouped = self._groups_decay(optimizer)
        return [
            f"{name}={python_value(value)}"
            for name, value in optimizer.arguments
            if not (grouped and name == "weight_decay")
        ]

    def _lr(self, optimizer: OptimizerSpec) -> str:
        return _set_or_default(optimizer, "lr")

    def _weight_decay(self, optimizer: OptimizerSpec) -> str:
        return _set_or_default(optimizer, "weight_decay")

    # ---- schedulers ----

    def _schedulers(
        self,
        optimizer: OptimizerSpec,
        schedule: Schedule,
        prefix: str,
        returned: list[_Made],
    ) -> list[str]:
        statements = []
        entries = []
        for track in schedule:
            name = f"{prefix}scheduler"
            if len(schedule) > 1:
                name = f"{prefix}{track.stages[0].name}_scheduler"
            made = self._track(optimizer, track, f"{prefix}optimizer")
            statements.append(f"{name} = {made}")
            entries.append(_scheduler_dictionary(name, track))
        returned.append(_Made(optimizer.label, f"{prefix}optimizer", entries))
        return statements

    def _track(self, optimizer: OptimizerSpec, track: Track, variable: str) -> str:
        clock = self.lengths.clock(track)
        stages = [
            self._stage(optimizer, stage, variable, clock.span(stage), track)
            for stage in track.stages
        ]
        if len(stages) == 1:
            return stages[0]
        if len(track.parts) == 1:
            items = [_list(stages), f"optimizer={variable}"]
            return _call(f"{SCHEDULERS_HOME}.ChainedScheduler", items)
        items = [
            variable,
            f"schedulers={_list(stages)}",
            f"milestones={_list(clock.milestones())}",
        ]
        return _call(f"{SCHEDULERS_HOME}.SequentialLR", items)

    def _stage(
        self,
        optimizer: OptimizerSpec,
        stage: Stage,
        variable: str,
        span: str,
        track: Track,
    ) -> str:
        entry = stage.entry
        values = stage.values
        arguments = [variable]
        for argument in entry.arguments:
            name = argument.name
            if name in values:
                text = self.lengths.value(values[name], track.interval)
            elif name == entry.span:
                text = span
            elif name == "max_lr":
                text = self._highest_rate(optimizer, variable)
            else:
                continue
            arguments.append(f"{name}={text}")
        return _call(entry.path, arguments)

    def _highest_rate(self, optimizer: OptimizerSpec, variable: str) -> str:
        shared = len(self.spec.optimizers) > 1 and not self.spec.labelled
        if self.spec.groups.scales_lr or shared:
            return f'[group["lr"] for group in {variable}.param_groups]'
        return self._lr(optimizer)

    # ---- what is returned ----

    def _return(self, returned: list[_Made]) -> str:
        if not self.spec.labelled:
            made = returned[0]
            if len(made.schedulers) > 1:
                return f"return [{made.variable}], {_list(made.schedulers)}"
            return f"return {_optimizer_dictionary(made)}"
        dictionaries = [
            (f'"{made.label}"', _optimizer_dictionary(made)) for made in returned
        ]
        if self.manual:
            return f"return {_list([text for _, text in dictionaries])}"
        return f"return {_mapping(dictionaries)}"

    def _annotation(self) -> str:
        one = "dict[str, object]"
        if not self.spec.labelled:
            several = len(self.spec.schedule("")) > 1
            return (
                "tuple[list[torch.optim.Optimizer], list[object]]" if several else one
            )
        return f"list[{one}]" if self.manual else f"dict[str, {one}]"

    def _title(self) -> str:
        classes = [optimizer.entry.class_name for optimizer in self.spec.optimizers]
        title = f"Use {' and '.join(classes)}"
        texts = dict.fromkeys(format_schedule(s) for _, s in self.spec.schedules if s)
        full = f"{title} with the schedule `{'`, `'.join(texts)}`." if texts else ""
        if texts and len(full) > _LINE - 14:
            full = f"{title} with a schedule."
        return full or f"{title}."


def _set_or_default(optimizer: OptimizerSpec, name: str) -> str:
    argument = optimizer.entry.argument(name)
    assert argument is not None
    default = argument.default
    assert isinstance(default, (int, float))
    return python_value(dict(optimizer.arguments).get(name, default))


def _scheduler_dictionary(variable: str, track: Track) -> str:
    pairs = [('"scheduler"', variable), ('"interval"', f'"{track.interval}"')]
    if track.frequency != 1:
        pairs.append(('"frequency"', str(track.frequency)))
    if track.monitor:
        pairs.append(('"monitor"', f'"{track.monitor}"'))
    if not track.strict:
        pairs.append(('"strict"', "False"))
    if track.label:
        pairs.append(('"name"', f'"{track.label}"'))
    return _mapping(pairs)


def _optimizer_dictionary(made: _Made) -> str:
    pairs = [('"optimizer"', made.variable)]
    pairs += [('"lr_scheduler"', entry) for entry in made.schedulers]
    return _mapping(pairs)


def _call(function: str, arguments: Iterable[str]) -> str:
    return f"{function}(\n{_lines(arguments)})"


def _list(items: Iterable[str]) -> str:
    return f"[\n{_lines(items)}]"


def _mapping(pairs: Iterable[tuple[str, str]]) -> str:
    return f"{{\n{_lines(f'{key}: {value}' for key, value in pairs)}}}"


def _strings(items: Iterable[str]) -> str:
    inner = ", ".join(f'"{item}"' for item in items)
    return f"({inner},)" if inner.count('"') == 2 else f"({inner})"


def _lines(items: Iterable[str]) -> str:
    return "".join(f"    {line}\n" for item in items for line in f"{item},".split("\n"))
