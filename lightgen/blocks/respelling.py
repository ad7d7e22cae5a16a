"""The generator's text with values as the user spells them.

Where a user wrote `lr=LR` and the generator would write `lr=0.001`, both mean the same;
said in the user's words on both sides of a merge, it is not taken for an edit.
"""

from __future__ import annotations

import ast
from collections import defaultdict

from lightgen.optim.reading.calls import Call
from lightgen.optim.reading.method import Reading
from lightgen.regen.block import Generated
from lightgen.regen.edits import Edit, apply_edits
from lightgen.regen.flow import assigned_names
from lightgen.regen.rename import with_names
from lightgen.regen.text import SourceText

RUN_LENGTHS = {"total_steps", "total_epochs", "steps_per_epoch"}
"""The variables in which generated code keeps the length of the run."""


def respelled(
    generated: Generated,
    now: Generated,
    reading: Reading,
    source: SourceText,
    *,
    lengths: bool,
) -> Generated:
    """Put the user's spelling where the generator says what it says now.

    Args:
        generated: The text to change.
        now: What the generator writes for what the user's code says now.
        reading: What the user's code says.
        source: The user's file.
        lengths: Whether to respell what mentions the length of the run.
    """
    version, present = generated.version, now.version
    own = assigned_names(version.method) - (RUN_LENGTHS if lengths else set())
    edits = []
    for written, call, mine in _triples(version.method, present.method, reading.calls):
        for name, value in _arguments(written).items():
            said = call.get(name)
            meant = mine.in_file.get(name)
            if said is None or meant is None or ast.dump(said) != ast.dump(value):
                continue
            mentions = {n.id for n in ast.walk(value) if isinstance(n, ast.Name)}
            if ast.dump(meant) == ast.dump(value) or mentions & own:
                continue
            edits.append(Edit(version.source.span(value), _on_one_line(source, meant)))
    text = apply_edits(version.source.text, edits)
    named = with_names(SourceText(text), _names(reading))
    return Generated(named.text.partition("\n")[2], generated.imports)


def _names(reading: Reading) -> dict[str, str]:
    """Return the user's name of each variable of the generator's, where they differ."""
    own = {made.variable for made in reading.made}
    return {
        made.variable: made.name
        for made in reading.made
        if made.name and made.name not in own
    }


def _triples(
    written: ast.FunctionDef, present: ast.FunctionDef, calls: list[Call]
) -> list[tuple[ast.Call, dict[str, ast.expr], Call]]:
    """Pair calls of the same function, each with the one that says the same."""
    first, second = _by_function(written), _by_function(present)
    mine: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        mine[call.path].append(call)
    return [
        (a, _arguments(b), c)
        for path, found in mine.items()
        if len(first[path]) == len(second[path]) == len(found)
        for a, b, c in zip(first[path], second[path], found, strict=True)
    ]


def _by_function(method: ast.FunctionDef) -> dict[str, list[ast.Call]]:
    found: dict[str, list[ast.Call]] = defaultdict(list)
    calls = [node for node in ast.walk(method) if isinstance(node, ast.Call)]
    for node in sorted(calls, key=lambda n: (n.lineno, n.col_offset)):
        found[ast.unparse(node.func)].append(node)
    return found


def _arguments(call: ast.Call) -> dict[str, ast.expr]:
    found = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    is_optimizer = bool(call.args) and ".lr_scheduler." not in ast.unparse(call.func)
    # Groups take the weight decay out of the call, so they are no mere spelling.
    if is_optimizer and "no_decay=" not in ast.unparse(call.args[0]):
        found["params"] = call.args[0]
    return found


def _on_one_line(source: SourceText, node: ast.expr) -> str:
    text = source.of(node)
    return ast.unparse(node) if "\n" in text or "\r" in text else text
