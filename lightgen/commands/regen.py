"""`lightgen regen`: writes a block of the project anew from options, keeping edits."""

from __future__ import annotations

import difflib
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from lightgen import console
from lightgen.blocks.optimizer import (
    Regeneration,
    conflict_error,
    plan,
    refuse_read_only,
    with_block,
)
from lightgen.blocks.pristine import with_base
from lightgen.blocks.probe import can_probe, check_sound, probe
from lightgen.blocks.resumable import prospects, sentences
from lightgen.blocks.status import NEW_SUFFIX
from lightgen.commands.optimizer_flags import with_optimizer_options
from lightgen.errors import OutOfDateError, UsageError
from lightgen.optim.options import OptimizerOptions
from lightgen.optim.spec import format_optimizer, to_record
from lightgen.project.history import typed_command, write_command
from lightgen.project.journal import read_file
from lightgen.project.paths import working_folder
from lightgen.project.root import find_root
from lightgen.project.state import STATE_PATH, ProjectState, read_state, state_json
from lightgen.project.tree import FileTree, TreeFile
from lightgen.regen.merge import Prefer

OnConflict = Literal["refuse", "ours", "theirs", "sidecar"]
_PREFER: dict[str, Prefer] = {"ours": "ours", "theirs": "theirs"}

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what would change; write nothing.")
]
Diff = Annotated[bool, typer.Option("--diff", help="Like --dry-run, as a diff.")]
Check = Annotated[
    bool, typer.Option("--check", help="Write nothing; exit 6 if anything would.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
OnConflictFlag = Annotated[
    str,
    typer.Option(
        "--on-conflict",
        metavar="refuse|ours|theirs|sidecar",
        help="What to do about a part that both sides changed.",
    ),
]
Module = Annotated[
    str,
    typer.Option(
        "--module", metavar="PATH:CLASS", help="The module; the project's one block."
    ),
]
Verify = Annotated[
    bool,
    typer.Option(
        "--verify/--no-verify",
        help="Run the new block before writing: import, optimizers, one batch.",
    ),
]
Restore = Annotated[
    bool, typer.Option("--restore", help="Write a block that was deleted anew.")
]


@with_optimizer_options
def regen_optimizer(
    options: OptimizerOptions,
    module: Module = "",
    on_conflict: OnConflictFlag = "refuse",
    restore: Restore = False,
    verify: Verify = True,
    dry_run: DryRun = False,
    diff: Diff = False,
    check: Check = False,
    as_json: AsJson = False,
) -> None:
    """Write `configure_optimizers` anew; what is not said stays as it was.

    Every edit of yours is kept. A part that both you and the options changed is named,
    with both values, and nothing is written.
    """
    if on_conflict not in ("refuse", "ours", "theirs", "sidecar"):
        raise UsageError(
            f"`{on_conflict}` is no way to settle a conflict",
            where="option --on-conflict",
            accepted="refuse, ours, theirs or sidecar",
        )
    root = find_root(working_folder())
    state_file = read_file(root, STATE_PATH)
    state = read_state(root)
    prefer = _PREFER.get(on_conflict, "")
    result = plan(root, state, module, options, prefer=prefer, restore=restore)
    sidecar = on_conflict == "sidecar" and bool(result.outcome.conflicts)
    if result.outcome.conflicts and not sidecar:
        raise conflict_error(result.block.file, result.outcome.conflicts)
    former = result.former.spec if result.former is not None else None
    checkpoints = prospects(root, result.block.spec, former)
    if result.changes and not as_json:
        for line in sentences(checkpoints):
            console.say(line)
    if check:
        _check(result)
    dry_run = dry_run or diff or check
    if result.before != result.after and not dry_run:
        refuse_read_only(root / result.block.file, result.block.file)
    tree = _sidecar(result) if sidecar else _changes(root, state, result)
    if verify and result.before != result.after and not dry_run:
        _verify(root, state, result, tree)
    if not dry_run and (result.changes or sidecar):
        before = result.before.encode(result.encoding)
        seen = {STATE_PATH: state_file, result.block.file: before}
        write_command(root, typed_command(), tree, seen)
    if as_json:
        record = _as_json(root, result, tree, written=not dry_run)
        console.put_json({**record, "checkpoints": [asdict(c) for c in checkpoints]})
    elif sidecar:
        (path,) = tree
        done = "Nothing written. It would go" if dry_run else "Wrote the new block"
        console.put(f"{done} beside the file: {path}")
    else:
        _show(result, written=not dry_run, with_diff=diff)


def _changes(root: Path, state: ProjectState, result: Regeneration) -> FileTree:
    """Return the files to write: the module if it changes, and the project's records."""
    tree: FileTree = {}
    if result.after != result.before:
        tree[result.block.file] = TreeFile(result.after.encode(result.encoding))
    state, base = with_base(root, with_block(state, result.block), result)
    tree |= base
    tree[STATE_PATH] = TreeFile(state_json(state))
    return tree


def _sidecar(result: Regeneration) -> FileTree:
    """Return the new block as a file of its own, for a merge by hand."""
    path = f"{result.block.file}{NEW_SUFFIX}"
    return {path: TreeFile(result.block.base.text.encode(result.encoding))}


def _check(result: Regeneration) -> None:
    if result.changes:
        raise OutOfDateError(
            f"`{result.block.class_name}.configure_optimizers` is not what the options "
            "ask for",
            where=result.block.file,
            todo="leave --check out, or look first: --diff",
        )


def _verify(
    root: Path, state: ProjectState, result: Regeneration, tree: FileTree
) -> None:
    """Run the project's code with the new block, before it is written."""
    if not can_probe(root, state.package):
        console.say("note: not run: the project has no program with a config.yaml")
        return
    try:
        probed = probe(root, state.package, tree, step=True)
    except KeyboardInterrupt:
        console.say("Interrupted while the new block was tried. Nothing written.")
        raise
    check_sound(probed, result.block.file)


def _as_json(
    root: Path, result: Regeneration, tree: FileTree, *, written: bool
) -> dict[str, object]:
    return {
        "command": "regen optimizer",
        "root": str(root),
        "file": result.block.file,
        "class": result.block.class_name,
        "status": result.outcome.status,
        "changed": result.changes,
        "written": sorted(tree) if written and result.changes else [],
        "spec": to_record(result.block.spec),
        "diff": _diff(result),
    }


def _show(result: Regeneration, *, written: bool, with_diff: bool) -> None:
    block = result.block
    where = f"{block.file}, {block.class_name}.configure_optimizers"
    if not result.changes:
        console.put(f"Nothing to do: {where} is as asked.")
        return
    optimizers = ", ".join(format_optimizer(each) for each in block.spec.optimizers)
    if not written:
        console.put(f"Nothing written. The plan for {where}: {optimizers}")
        console.put(_diff(result).rstrip() if with_diff else "  see it with --diff")
        return
    kept = " Your edits are kept." if result.outcome.status == "edited" else ""
    if result.before == result.after:
        console.put(f"{where} says so already, or keeps what you wrote.")
        console.put(f"The options are remembered: {optimizers}.")
    else:
        console.put(f"Rewrote {where}: {optimizers}.{kept}\n")
        console.put(_diff(result).rstrip())
    console.put("\nlightgen undo takes it back.")


def _diff(result: Regeneration) -> str:
    name = result.block.file
    return "".join(
        difflib.unified_diff(
            result.before.splitlines(keepends=True),
            result.after.splitlines(keepends=True),
            f"a/{name}",
            f"b/{name}",
        )
    )
