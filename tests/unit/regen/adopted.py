"""Hand-written modules, what they say, and what they make when they are run."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from blocks import EPOCHS, STEPS, rates

from lightgen.optim.emit import emit
from lightgen.optim.options import OptimizerOptions, resolve
from lightgen.optim.spec import OptimSpec
from lightgen.regen.text import SourceText
from lightgen_runtime.core.optim import normalise
from lightgen_runtime.utilities.exceptions import MisconfigurationException

CASES = Path(__file__).parents[2] / "cases/adopt"
NAMES = sorted(path.stem for path in CASES.glob("*.py"))
REFUSED = sorted(path.stem for path in (CASES / "refused").glob("*.py"))


@dataclass(frozen=True)
class Case:
    """A module as somebody wrote it, and what it says."""

    text: str
    spec: OptimSpec


def case(name: str) -> Case:
    spec = resolve(OptimizerOptions(spec=CASES / f"{name}.yaml"), None)
    return Case((CASES / f"{name}.py").read_text(), spec)


def comments(text: str) -> list[str]:
    source = SourceText(text)
    return sorted(text[span.start : span.end] for span in source.comments)


def commented(text: str, *, above: bool) -> str:
    """Put a comment at every line of the method's body that has none."""
    method = method_of(text)
    first = method.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        first = method.body[1]
    assert method.end_lineno is not None
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        inside = first.lineno <= number <= method.end_lineno
        if not inside or not line.strip() or "#" in line:
            lines.append(line)
        elif above:
            indent = line[: len(line) - len(line.lstrip())]
            lines += [f"{indent}# about line {number}", line]
        else:
            lines.append(f"{line}  # line {number}")
    return "".join(f"{line}\n" for line in lines)


def own_lines(text: str) -> list[str]:
    """Return the lines that are marked as no part of the result."""
    return [line.strip() for line in text.splitlines() if "# mine" in line]


def remarks(text: str) -> list[tuple[int, str]]:
    """Return the lines that are marked as impossible to say, and why."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        match = re.search(r"# refused: (.*)", line)
        if match is not None:
            found.append((number, match[1]))
    return found


def with_block(text: str, spec: OptimSpec) -> str:
    """Return a module with the generator's own block in the place of its method."""
    method = method_of(text)
    first = min([method.lineno, *(d.lineno for d in method.decorator_list)])
    lines = text.splitlines()
    manual = "automatic_optimization = False" in text
    block, imports = emit(spec, manual=manual)
    unit = re.search(r"^( +)", text, re.MULTILINE)
    assert unit is not None
    width = len(unit[1])
    new = re.sub(
        r"^( {4})+", lambda m: " " * (width * len(m[0]) // 4), block, flags=re.M
    )
    before, behind = lines[: first - 1], lines[method.end_lineno :]
    first_of_all = [line for line in lines if line.endswith("# mine, at first")]
    head, mark, rest = new.partition('."""\n')
    new = head + mark + "".join(f"{line}\n" for line in first_of_all) + rest
    return "\n".join([*imports, *before, new, *behind])


def observe(text: str) -> list[Any]:
    """Run a module's block and return everything about it that matters."""
    namespace: dict[str, Any] = {"__name__": "case"}
    exec(text, namespace)
    torch.manual_seed(0)
    module = namespace["Net"]()
    module.trainer = SimpleNamespace(
        estimated_stepping_batches=STEPS, max_epochs=EPOCHS
    )
    module.print = print
    try:
        plan = normalise(module.configure_optimizers())
    except MisconfigurationException as error:  # a selector that picks nothing
        return [str(error)]
    names = {id(p): name for name, p in module.named_parameters()}
    seen = []
    for optimizer in plan.optimizers:
        configs = [c for c in plan.schedulers if c.scheduler.optimizer is optimizer]
        seen.append(
            (
                type(optimizer).__name__,
                [g for g in _groups(optimizer, names) if g["params"]],
                [_schedule(config, optimizer) for config in configs],
            )
        )
    return seen


def method_of(text: str) -> ast.FunctionDef:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.name == "configure_optimizers":
            return node
    raise AssertionError("no method")


def _groups(optimizer: Any, names: dict[int, str]) -> list[dict[str, Any]]:
    return [_group(group, names) for group in optimizer.param_groups]


def _group(group: dict[str, Any], names: dict[int, str]) -> dict[str, Any]:
    parameters = sorted(
        names[id(parameter)] for parameter in group["params"] if parameter.requires_grad
    )
    rest = {key: _rounded(value) for key, value in group.items() if key != "name"}
    return {**rest, "params": parameters}


def _schedule(config: Any, optimizer: Any) -> Any:
    scheduler = config.scheduler
    steps = STEPS if config.interval == "step" else EPOCHS
    curve = rates(scheduler, optimizer, steps - 1)
    watched = config.monitor if config.reduce_on_plateau else None
    said = (config.interval, config.frequency, watched, config.strict)
    return type(scheduler).__name__, said, config.name, _rounded(curve)


def _rounded(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_rounded(part) for part in value]
    return round(value, 12) if isinstance(value, float) else value
