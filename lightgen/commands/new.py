"""`lightgen new`: writes a project from a template."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from lightgen import __version__, console
from lightgen.blocks.optimizer import change_generated, find_generated
from lightgen.commands.optimizer_flags import with_optimizer_options
from lightgen.errors import UsageError
from lightgen.optim.options import OptimizerOptions
from lightgen.project import git, journal, plan
from lightgen.project.history import typed_command, write_command
from lightgen.project.names import check_name
from lightgen.project.paths import shortest, writable_folder
from lightgen.project.state import (
    STATE_FOLDER,
    STATE_PATH,
    ProjectState,
    pristine_hashes,
    state_files,
)
from lightgen.project.tree import FileTree
from lightgen.rendering.answers import check_answers, parse_data
from lightgen.rendering.bundled import DEFAULT_TEMPLATE
from lightgen.rendering.render import render
from lightgen.rendering.source import open_template
from lightgen.rendering.template import refuse_unsafe
from lightgen.rendering.verify import format_python, verify_tree


@dataclass(frozen=True)
class _Project:
    """A project ready to be written: its state, its files, and what they change."""

    root: Path
    state: ProjectState
    tree: FileTree
    changes: list[plan.Change]


Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="Import name of the project, and of its folder."
    ),
]
Template = Annotated[
    str,
    typer.Option(help="Bundled name, folder, or git address such as gh:owner/name."),
]
Data = Annotated[
    list[str] | None,
    typer.Option("--data", metavar="KEY=VALUE", help="Answer; may be repeated."),
]
OutputDir = Annotated[
    Path, typer.Option(help="Existing folder to create the project in.")
]
Defaults = Annotated[
    bool, typer.Option("--defaults", help="Ask nothing, take every default.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show the plan and write nothing.")
]
Diff = Annotated[
    bool, typer.Option("--diff", help="Like --dry-run, with contents, as a diff.")
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object; ask nothing.")
]
Git = Annotated[
    bool | None,
    typer.Option(
        "--git/--no-git",
        help="Run `git init`; by default in a new folder outside any repository.",
    ),
]
Force = Annotated[
    bool, typer.Option("--force", help="Replace files of an existing folder.")
]


@with_optimizer_options
def new(
    name: Name,
    options: OptimizerOptions,
    template: Template = DEFAULT_TEMPLATE,
    data: Data = None,
    output_dir: OutputDir = Path(),
    defaults: Defaults = False,
    dry_run: DryRun = False,
    diff: Diff = False,
    as_json: AsJson = False,
    use_git: Git = None,
    force: Force = False,
) -> None:
    """Write a new training project.

    Asks for the template's options on a terminal. Writes all files or none.
    """
    dry_run = dry_run or diff
    parent = writable_folder(output_dir, where="option --output-dir")
    check_name(name, parent)
    root = parent / name
    if not dry_run:
        journal.recover(root)
    fresh = plan.is_free(root)
    if not fresh and not force:
        raise plan.occupied(root)
    wants_git = git.decide(parent, use_git, fresh=fresh)

    interactive = not (defaults or as_json) and console.is_interactive()
    project = _prepare(root, template, data or [], options, interactive=interactive)

    has_git = False
    if not dry_run:
        _write(root, _new_files(project))
        has_git = wants_git and _start_repository(root)
    text = plan.contents_diff(root, project.tree, _shown(project)) if diff else ""
    if as_json:
        report = _as_json(project) | {"dry_run": dry_run, "git": has_git}
        console.put_json(report | ({"diff": text} if diff else {}))
    elif dry_run:
        _show_plan(project, text)
    else:
        _show_result(project, fresh=fresh)


def _prepare(
    root: Path,
    reference: str,
    pairs: list[str],
    options: OptimizerOptions,
    *,
    interactive: bool,
) -> _Project:
    """Do everything that can fail before anything is written."""
    data = parse_data(pairs)
    with open_template(reference) as template:
        refuse_unsafe(template.config, shown_as=reference)
        check_answers(template.config, data, template=reference)
        rendered = render(template, root.name, data, interactive=interactive)
    verify_tree(rendered.tree)
    tree = format_python(rendered.tree)
    tree, blocks = _with_optimizer(tree, template.config.optimizer_spec, options)
    state = ProjectState(
        generator=__version__,
        package=root.name,
        template=template.record,
        answers=rendered.answers,
        files=pristine_hashes(tree),
        blocks=blocks,
    )
    tree |= state_files(state, tree)
    return _Project(root, state, tree, plan.plan_changes(root, tree))


def _with_optimizer(
    tree: FileTree, record: Mapping[str, Any] | None, options: OptimizerOptions
) -> tuple[FileTree, dict[str, Any]]:
    """Give the template's optimizer block the options asked for.

    Returns:
        The files, and the records of their blocks.
    """
    block = find_generated(tree, record) if record is not None else None
    if block is None:
        if options.given:
            raise UsageError(
                "the template has no optimizer block that options could change",
                where="option --template",
                accepted="a template with an `optimizer_spec`, such as `vision`",
                todo="leave the optimizer options out, then adopt the method: "
                "lightgen adopt PATH:CLASS",
            )
        return tree, {}
    if options.given:
        tree, block = change_generated(tree, block, options)
    return tree, {block.key: block.record()}


def _new_files(project: _Project) -> FileTree:
    return {
        change.path: project.tree[change.path]
        for change in project.changes
        if change.action != "keep"
    }


def _write(root: Path, tree: FileTree) -> None:
    """Write the project; over another one, as a command that can be undone."""
    if (root / STATE_PATH).is_file():
        write_command(root, typed_command(), tree)
    else:
        journal.write_files(root, tree)


def _start_repository(root: Path) -> bool:
    problem = git.initialize(root)
    if problem:
        console.say(f"warning: `git init` failed: {problem}", style="yellow")
    return not problem


def _as_json(project: _Project) -> dict[str, object]:
    return {
        "command": "new",
        "root": str(project.root),
        "package": project.state.package,
        "template": asdict(project.state.template),
        "answers": project.state.answers,
        "files": [asdict(change) for change in project.changes],
    }


def _shown(project: _Project) -> list[plan.Change]:
    """Leave out lightgen's records, which a reader did not ask for."""
    return [
        change
        for change in project.changes
        if not change.path.startswith(f"{STATE_FOLDER}/")
    ]


def _show_plan(project: _Project, diff: str) -> None:
    console.put(f"Nothing written. The plan for {project.root}:")
    for change in _shown(project):
        console.put(f"  {change.action:<8} {change.path}")
    console.put(f"  and lightgen's records in {STATE_FOLDER}/")
    if diff:
        console.put(f"\n{diff.rstrip()}")


def _show_result(project: _Project, *, fresh: bool) -> None:
    template = project.state.template
    version = f", version {template.version}" if template.version else ""
    done = "Created" if fresh else "Rewrote"
    console.put(
        f"{done} {project.root.name} from the template {template.id}{version}.\n"
    )
    shown = _shown(project)
    for line in console.tree_lines(change.path for change in shown):
        console.put(f"  {line}")
    replaced = [change.path for change in shown if change.action == "replace"]
    if replaced:
        console.put("\nReplaced:")
        for path in replaced:
            console.put(f"  {path}")
    where = shortest(project.root)
    console.put("\nNext:")
    if where != ".":
        console.put(f"  cd {shlex.quote(where)}")
    console.put("  lightgen train")
