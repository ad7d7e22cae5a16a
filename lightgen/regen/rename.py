"""Variables that the user gave other names, and the generator's text by those names."""

from __future__ import annotations

import ast

from lightgen.regen.edits import Edit, apply_edits
from lightgen.regen.nodes import Slot
from lightgen.regen.text import SourceText


def renamed_variables(base: list[Slot], ours: list[Slot]) -> dict[str, str]:
    """Find which variables of `base` have other names in `ours`.

    A name counts as changed if nothing is called by the old one any more and exactly one
    new name is assigned the same, or a call of the same function.
    """
    before = {slot.name: slot for slot in base if _assigns(slot)}
    now = {slot.name: slot for slot in ours if _assigns(slot)}
    gone = [name for name in before if name not in now]
    fresh = [name for name in now if name not in before]
    renamed: dict[str, str] = {}
    for name in gone:
        alike = [new for new in fresh if _alike(before[name], now[new])]
        if len(alike) == 1 and alike[0] not in renamed.values():
            renamed[name] = alike[0]
    return renamed


def with_names(source: SourceText, renamed: dict[str, str]) -> SourceText:
    """Return the text with every variable by its new name."""
    edits = [
        Edit(source.span(node), renamed[node.id])
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Name) and node.id in renamed
    ]
    return SourceText(apply_edits(source.text, edits)) if edits else source


def _assigns(slot: Slot) -> bool:
    name = slot.name.removeprefix("self.")
    return slot.key[0] == "assign" and name.isidentifier() and bool(slot.slots)


def _alike(before: Slot, now: Slot) -> bool:
    was, is_ = before.slots[0], now.slots[0]
    if was.shape == is_.shape:
        return True
    return was.kind == is_.kind == "call" and was.slots[0].shape == is_.slots[0].shape
