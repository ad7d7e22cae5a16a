"""A whole method to a specification, or to all the lines that none can say."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from lightgen.errors import LightgenError
from lightgen.optim.catalogue import OPTIMIZERS
from lightgen.optim.reading.body import SPLIT, Body, returned
from lightgen.optim.reading.calls import Call, CallReader
from lightgen.optim.reading.parameters import ParameterReader, Parameters
from lightgen.optim.reading.problems import InexpressibleError, Remark, shown
from lightgen.optim.reading.returned import Entry, entries
from lightgen.optim.reading.schedules import Config, ScheduleReader
from lightgen.optim.reading.values import Values
from lightgen.optim.rules import check_spec
from lightgen.optim.schedule import Schedule
from lightgen.optim.spec import (
    GroupSpec,
    OptimizerSpec,
    OptimSpec,
    from_record,
    to_record,
    with_arguments,
)
from lightgen.optim.values import Value

_ENTRIES = {entry.path: entry for entry in OPTIMIZERS.values()}
_COMBINED = "lightgen_runtime.optim.CombinedOptimizer"


@dataclass
class Reading:
    """What a method says.

    Attributes:
        spec: The same as a specification; None if that is not possible.
        problems: The lines that stand in the way.
        notes: What the specification says in other words.
        calls: The constructors that were called, in the specification's order.
        body: The method's statements.
        made: The optimizers and schedules, and where they are made.
    """

    spec: OptimSpec | None
    problems: list[Remark]
    notes: list[Remark]
    calls: list[Call]
    body: Body
    made: list[Made] = field(default_factory=list)


@dataclass
class Made:
    """An optimizer, or a schedule, and where it is made.

    Attributes:
        variable: What the emitter calls it.
        node: The outermost constructor call.
        name: The variable that it was assigned to; "" if to none.
    """

    variable: str
    node: ast.Call
    name: str


def read_method(
    module: ast.Module,
    class_: ast.ClassDef,
    method: ast.FunctionDef,
    path: Callable[[ast.expr], str],
) -> Reading:
    """Read a method.

    Args:
        module: Its file.
        class_: Its class.
        method: It.
        path: Says which full dotted name an expression means, "" for none.
    """
    reader = _Reader(module, class_, method, path)
    spec = reader.spec()
    problems = sorted({*reader.problems, *reader.body.remarks()})
    return Reading(
        None if problems else spec,
        problems,
        sorted(set(reader.values.notes)),
        list(reader.calls.seen.values()),
        reader.body,
        reader.made,
    )


class _Reader:
    """One reading under way; collects problems instead of stopping at the first."""

    def __init__(
        self,
        module: ast.Module,
        class_: ast.ClassDef,
        method: ast.FunctionDef,
        path: Callable[[ast.expr], str],
    ) -> None:
        self.path = path
        self.values = Values(module, class_)
        self.body = Body(method, path)
        self.calls = CallReader(self.body.bindings, self.values, path)
        self.parameters = ParameterReader(self.values, path)
        self.schedules = ScheduleReader(self.calls)
        self.problems: list[Remark] = []
        self.made: list[Made] = []

    def spec(self) -> OptimSpec | None:
        try:
            result = returned(self.body)
        except InexpressibleError as error:
            if not self.body.remarks():  # else it says the same in other words
                self.problems.append(error.remark)
            return None
        try:
            found, beside = entries(result)
            self._label(found)
            self._assign(found, beside)
            self.calls.seen.clear()  # from here on in the specification's order
            spec = self._spec(found)
        except InexpressibleError as error:
            self.problems.append(error.remark)
            return None
        self._check_all_returned()
        if self.problems:
            return None
        try:
            checked = from_record(to_record(spec))
            check_spec(checked)
        except LightgenError as error:
            line = self.body.method.lineno
            if self.body.result is not None:
                line = self.body.result.lineno
            self.problems.append(Remark(line, error.given, error.accepted))
            return None
        return checked

    def _check_all_returned(self) -> None:
        """Refuse a scheduler that is made and not returned: making it sets the rate."""
        read = {self.body.bindings.written(node) for node in self.calls.seen}
        for node in ast.walk(self.body.method):
            if not isinstance(node, ast.Call) or node in read:
                continue
            if self.path(node.func).startswith("torch.optim.lr_scheduler."):
                text = f"`{shown(node)}` is made and not returned"
                todo = "return it, or leave it out"
                self.problems.append(Remark(node.lineno, text, todo))

    # ---- optimizers ----

    def _spec(self, found: list[Entry]) -> OptimSpec:
        if len(found) == 1 and self.path(found[0].optimizer.func) == _COMBINED:
            return self._combined(found[0])
        optimizers: list[OptimizerSpec] = []
        groups: list[GroupSpec] = []
        schedules: list[tuple[str, Schedule]] = []
        for entry in found:
            optimizer, parameters = self._optimizer(entry.optimizer, entry.label)
            prefix = f"{entry.label}_" if entry.label else ""
            self._made(f"{prefix}optimizer", entry.optimizer)
            optimizers.append(optimizer)
            groups.append(parameters.groups)
            schedule = self._schedule(entry, optimizer, prefix)
            if schedule:
                schedules.append((entry.label, schedule))
        if any(group != groups[0] for group in groups):
            raise InexpressibleError(
                found[0].optimizer,
                "the parameters of one optimizer are grouped, those of another are not",
                "the same groups for all",
            )
        if len(schedules) == len(found) > 1 and len({s for _, s in schedules}) == 1:
            schedules = [("", schedules[0][1])]
        freeze = tuple(self.body.freeze.values())
        return OptimSpec(tuple(optimizers), tuple(schedules), groups[0], freeze)

    def _optimizer(
        self, node: ast.Call, label: str, among: Parameters | None = None
    ) -> tuple[OptimizerSpec, Parameters]:
        call = self.calls.read(node)
        entry = _ENTRIES.get(call.path)
        if entry is None:
            raise InexpressibleError(
                node, f"`{shown(node.func)}` is no optimizer", "one of torch's"
            )
        found: dict[str, Value] = {}
        for argument in entry.arguments:
            meant = call.arguments.get(argument.name)
            if meant is None:
                continue
            try:
                value = self.values.read(argument, meant, call.in_file[argument.name])
                found[argument.name] = value
            except InexpressibleError as error:
                self.problems.append(error.remark)
        params = call.arguments.get("params")
        if params is None:
            raise InexpressibleError(node, "an optimizer without parameters", "some")
        parameters = among or Parameters()
        try:
            if among is None or isinstance(params, ast.Call):
                parameters = self.parameters.read(params, entry, found)
        except InexpressibleError as error:
            self.problems.append(error.remark)
        if among is not None:
            parameters = replace(parameters, select=among.select)
        spec = with_arguments(
            OptimizerSpec(entry.name, (), label, parameters.select),
            found | parameters.values,
        )
        return spec, parameters

    def _combined(self, entry: Entry) -> OptimSpec:
        """Read optimizers behind one, as the emitter writes them."""
        optimizers: list[OptimizerSpec] = []
        groups: list[GroupSpec] = []
        for node in entry.optimizer.args:
            if not isinstance(node, ast.Call):
                raise InexpressibleError(node, f"`{shown(node)}`", "an optimizer")
            select = Parameters(self._share(node))
            optimizer, parameters = self._optimizer(node, "", select)
            optimizers.append(optimizer)
            groups.append(parameters.groups)
        self._made("optimizer", entry.optimizer)
        schedule = self._schedule(entry, optimizers[0], "")
        chosen = next((group for group in groups if group != GroupSpec()), GroupSpec())
        if chosen != GroupSpec():
            # An optimizer without weight decay has no part in groups by it.
            fits = [
                group == chosen or not optimizer.entry.has("weight_decay")
                for group, optimizer in zip(groups, optimizers, strict=True)
            ]
            if not all(fits):
                raise InexpressibleError(
                    entry.optimizer, "groups that differ", "the same groups for all"
                )
        freeze = tuple(self.body.freeze.values())
        schedules = (("", schedule),) if schedule else ()
        return OptimSpec(tuple(optimizers), schedules, chosen, freeze)

    def _share(self, node: ast.Call) -> str:
        """Return the selector of the parameters that `split_parameters` gave."""
        for inner in ast.walk(node):
            if isinstance(inner, ast.Subscript) and isinstance(inner.value, ast.Call):
                split, place = inner.value, inner.slice
                if self.path(split.func) == SPLIT and isinstance(place, ast.Constant):
                    selectors = [*split.args[1:], ast.Constant("")]
                    return str(self.values.value(selectors[int(str(place.value))]))
        raise InexpressibleError(
            node, f"`{shown(node)}`", "parameters from split_parameters(self, ...)"
        )

    # ---- schedules ----

    def _assign(self, found: list[Entry], beside: list[ast.expr]) -> None:
        """Give schedulers that were returned beside all optimizers to their own."""
        for node in beside:
            try:
                self._owner(found, node).schedulers.append(node)
            except InexpressibleError as error:
                self.problems.append(error.remark)

    def _owner(self, found: list[Entry], node: ast.expr) -> Entry:
        config = self.schedules.config(node, None)
        optimizer = self.schedules.optimizer_of(config)
        for entry in found:
            if entry.optimizer is optimizer:
                return entry
        raise InexpressibleError(
            config.call,
            f"`{shown(config.call)}` drives no optimizer that is returned",
            "a scheduler of one that is",
        )

    def _schedule(
        self, entry: Entry, optimizer: OptimizerSpec, prefix: str
    ) -> Schedule:
        lr = optimizer.value("lr")
        argument = optimizer.entry.argument("lr")
        if lr is None and argument is not None:
            lr = argument.default  # type: ignore[assignment]
        tracks = []
        configs: list[Config] = []
        for node in entry.schedulers:
            try:
                config = self.schedules.config(node, entry.monitor)
                if self.schedules.optimizer_of(config) is not entry.optimizer:
                    raise InexpressibleError(
                        config.call,
                        f"`{shown(config.call)}` drives another optimizer",
                        "the one that it is returned with",
                    )
                tracks.append(self.schedules.track(config, lr))
                configs.append(config)
            except InexpressibleError as error:
                self.problems.append(error.remark)
        for track, config in zip(tracks, configs, strict=True):
            name = f"{prefix}scheduler"
            if len(tracks) > 1:
                name = f"{prefix}{track.stages[0].name}_scheduler"
            self._made(name, config.call)
        return tuple(tracks)

    # ---- names ----

    def _made(self, variable: str, node: ast.Call) -> None:
        name = self.body.bindings.name_of.get(node, "")
        self.made.append(Made(variable, node, name))

    def _label(self, found: list[Entry]) -> None:
        """Give several optimizers names: those of their variables, or of their parts."""
        if len(found) == 1:
            found[0].label = ""
            return
        taken: set[str] = set()
        for number, entry in enumerate(found):
            name = self.body.bindings.name_of.get(entry.optimizer, "")
            words = re.sub(
                r"(?:^|_)(?:opt|optim|optimizer)(?=_|$)", "", name.removeprefix("self.")
            )
            part = ast.unparse(entry.optimizer).partition(".parameters()")[0]
            candidates = [entry.label, words.strip("_"), part.rpartition(".")[2]]
            candidates.append(f"part{number + 1}")
            entry.label = next(
                word for word in candidates if word.isidentifier() and word not in taken
            )
            taken.add(entry.label)
