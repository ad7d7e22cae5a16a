"""`lightgen status`: what became of everything that lightgen generated."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from lightgen import console
from lightgen.blocks.status import STATUSES, Found, block_statuses, file_statuses
from lightgen.errors import LightgenError, ProjectStateError
from lightgen.project.history import Reach, read_history
from lightgen.project.paths import working_folder
from lightgen.project.root import look_for_root
from lightgen.project.state import ProjectState, read_state

All = Annotated[bool, typer.Option("--all", help="List what is pristine, too.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def status(show_all: All = False, as_json: AsJson = False) -> None:
    """Show which generated files and blocks you have edited, and which not.

    Pristine: as generated; adopted: as you wrote it; formatted: only its layout differs;
    conflicting: waits for you to settle something. A file's blocks are compared on
    lines of their own.
    """
    root, trouble = look_for_root(working_folder())
    state = read_state(root)
    files, blocks = file_statuses(root, state), block_statuses(root, state)
    try:
        history: Reach | None = read_history(root)
    except ProjectStateError as error:
        history, trouble = None, trouble or error
    if as_json:
        console.put_json(
            {
                "command": "status",
                "root": str(root),
                "generator": state.generator,
                "template": asdict(state.template),
                "files": [_as_json(found) for found in files],
                "blocks": [_as_json(found) for found in blocks],
                "undo": [entry.command for entry in history.undo] if history else None,
                "redo": [entry.command for entry in history.redo] if history else None,
                "trouble": trouble.given if trouble else None,
            }
        )
        return
    _show(state, [*files, *blocks], show_all=show_all)
    if history is not None:
        _show_history(history)
    if trouble is not None:
        _show_trouble(trouble)


def _as_json(found: Found) -> dict[str, str]:
    return {key: value for key, value in asdict(found).items() if value}


def _show(state: ProjectState, found: list[Found], *, show_all: bool) -> None:
    template = state.template
    origin = f", from the template {template.id} {template.version}".rstrip()
    origin = origin if template.id else ""
    console.put(f"{state.package}{origin}, by lightgen {state.generator}\n")
    shown = [each for each in found if show_all or each.status != "pristine"]
    shown.sort(key=lambda each: (STATUSES.index(each.status), each.path, each.block))
    for each in shown:
        block = f"  {each.block}" if each.block else ""
        console.put(f"  {each.status:<11}  {each.path}{block}")
        if each.reason:
            console.put(f"{'':15}{each.reason}")
    if shown:
        console.put("")
    if not show_all:
        console.put(_pristine(found))


def _pristine(found: list[Found]) -> str:
    """Count what is as it was generated, and say so."""
    counts = []
    for kind, each in (
        ("file", [one for one in found if not one.block]),
        ("block", [one for one in found if one.block]),
    ):
        if not each:
            continue
        pristine = sum(one.status == "pristine" for one in each)
        plural = "s" if len(each) != 1 else ""
        counts.append(f"{pristine} of {len(each)} {kind}{plural}")
    return f"Pristine: {', '.join(counts) or 'nothing was generated'}."


def _show_history(history: Reach) -> None:
    for verb, entries in (("undo", history.undo), ("redo", history.redo)):
        if entries:
            more = f", and {len(entries) - 1} more" if len(entries) > 1 else ""
            console.put(f"lightgen {verb}: {entries[0].command}{more}")


def _show_trouble(trouble: LightgenError) -> None:
    console.put(f"\n{trouble.given}\n  see: lightgen doctor")
