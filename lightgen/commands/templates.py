"""`lightgen templates`: lists, describes and exports the bundled templates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lightgen import console
from lightgen.project.journal import recover, write_files
from lightgen.project.paths import absolute_path, writable_folder
from lightgen.project.plan import is_free, occupied
from lightgen.rendering.bundled import bundled_config, bundled_files, bundled_names
from lightgen.rendering.template import Question

Name = Annotated[str, typer.Argument(help="Name of a bundled template.")]
_TARGET = "argument DIR"
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def list_templates(as_json: AsJson = False) -> None:
    """List the bundled templates."""
    titles = {name: bundled_config(name).title for name in bundled_names()}
    if as_json:
        templates = [{"name": name, "title": title} for name, title in titles.items()]
        console.put_json({"command": "templates list", "templates": templates})
        return
    width = max(map(len, titles), default=0)
    for name, title in titles.items():
        console.put(f"{name:<{width}}  {title}".rstrip())


def show_template(name: Name, as_json: AsJson = False) -> None:
    """Show the options and files of one template."""
    config = bundled_config(name)
    files = _file_names(name)
    questions = [_described(question) for question in config.askable.values()]
    if as_json:
        console.put_json(
            {
                "command": "templates show",
                "name": name,
                "title": config.title,
                "version": config.version,
                "options": questions,
                "files": files,
            }
        )
        return
    console.put(f"{name}, version {config.version}: {config.title}\n\nOptions:")
    for question in questions:
        console.put(f"  {question['name']} ({question['type']})")
        if question["help"]:
            console.put(f"      {question['help']}")
        if question["choices"]:
            console.put(f"      choices: {', '.join(map(str, question['choices']))}")
        console.put(f"      default: {question['default']}")
    console.put("\nFiles:")
    for path in files:
        console.put(f"  {path}")


def export_template(
    name: Name,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Missing or empty folder to fill.")
    ],
    as_json: AsJson = False,
) -> None:
    """Write a template as a folder that `copier copy` understands by itself."""
    files = bundled_files(name)
    root = absolute_path(folder, where=_TARGET).resolve()
    writable_folder(root.parent, where=_TARGET)
    recover(root)
    if not is_free(root):
        raise occupied(root)
    write_files(root, files)
    if as_json:
        console.put_json(
            {
                "command": "templates export",
                "name": name,
                "root": str(root),
                "files": sorted(files),
            }
        )
        return
    console.put(f"Exported {name} to {folder}: {len(files)} files.")


def _described(question: Question) -> dict[str, Any]:
    return {
        "name": question.name,
        "type": question.type_name,
        "default": question.default,
        "choices": list(question.choices),
        "help": " ".join(question.help.split()),
    }


def _file_names(name: str) -> list[str]:
    """Name the files a project gets, placeholders unfilled."""
    return sorted(
        path.removeprefix("files/").removesuffix(".jinja")
        for path in bundled_files(name)
        if path.startswith("files/")
    )
