"""`lightgen doctor`: whether this installation and this project are sound."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer

from lightgen import __version__, console
from lightgen.blocks.checkup import Finding, Level, as_problem, check_project
from lightgen.errors import LightgenError, ProjectNotFoundError, UnsoundError
from lightgen.optim.catalogue import TORCH
from lightgen.optim.drift import drift, read_installed
from lightgen.project.paths import working_folder
from lightgen.project.root import look_for_root

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def doctor(as_json: AsJson = False) -> None:
    """Check the installation, and the project around this folder.

    Exit code 5 if there is a problem; a note is none.
    """
    findings = [*_environment(), *_catalogue(), *_project()]
    problems = sum(finding.level == "problem" for finding in findings)
    if as_json:
        listed = [asdict(finding) for finding in findings]
        report = {"command": "doctor", "sound": not problems, "findings": listed}
        console.put_json(report)
    else:
        for finding in findings:
            console.put(f"{finding.level:<8} {finding.check}: {finding.text}")
            if finding.todo:
                console.put(f"{'':9}{finding.todo}")
    if problems:
        plural = "s" if problems > 1 else ""
        raise UnsoundError(
            f"{problems} problem{plural} in {len(findings)} findings",
            todo="do what stands below each, then ask again: lightgen doctor",
        )


def _environment() -> Iterator[Finding]:
    yield Finding("ok", "python", ".".join(map(str, sys.version_info[:3])))
    yield Finding("ok", "lightgen", __version__)
    if importlib.util.find_spec("lightgen_runtime") is None:
        text = "lightgen_runtime is not installed: no project can run"
        todo = "pip install --force-reinstall lightgen"
        yield Finding("problem", "runtime", text, todo)
    yield _dependencies()


def _dependencies() -> Finding:
    """Compare what is installed with what lightgen asks for."""
    from importlib import metadata

    from packaging.requirements import Requirement

    try:
        lines = metadata.requires("lightgen") or []
    except metadata.PackageNotFoundError:
        text = "not known: lightgen runs from its source"
        return Finding("note", "dependencies", text, "pip install lightgen")
    needed = [
        each
        for each in map(Requirement, lines)
        if each.marker is None or each.marker.evaluate({"extra": ""})
    ]
    faults = []
    for each in needed:
        try:
            version = metadata.version(each.name)
        except metadata.PackageNotFoundError:
            faults.append(f"{each.name} is missing")
            continue
        if not each.specifier.contains(version, prereleases=True):
            faults.append(f"{each.name} is {version}, not {each.specifier}")
    if faults:
        todo = "pip install --upgrade lightgen"
        return Finding("problem", "dependencies", "; ".join(faults), todo)
    return Finding("ok", "dependencies", f"all {len(needed)} as asked for")


def _catalogue() -> Iterator[Finding]:
    """Compare the catalogue of optimizers and schedulers with torch."""
    try:
        installed = read_installed()
    except ImportError as error:
        todo = "python -c 'import torch' shows why"
        yield Finding("problem", "torch", f"cannot be imported: {error}", todo)
        return
    if installed is None:
        text = "not installed: nothing can be trained, and the catalogue of "
        text += f"optimizers, made for torch {TORCH}, not be compared"
        yield Finding("problem", "torch", text, "pip install torch")
        return
    yield Finding("ok", "torch", installed.version)
    differences = drift(installed.classes)
    for each in differences:
        todo = (
            f"leave it out of options, or install torch {TORCH}" if each.breaks else ""
        )
        level: Level = "problem" if each.breaks else "note"
        yield Finding(level, "catalogue", f"{each.subject}: {each.text}", todo)
    if not differences:
        yield Finding("ok", "catalogue", f"of torch {TORCH}, agrees with it")


def _project() -> Iterator[Finding]:
    try:
        root, trouble = look_for_root(working_folder())
    except ProjectNotFoundError as error:
        yield Finding("note", "project", "none around this folder", error.todo)
        return
    except LightgenError as error:
        yield as_problem("project", error)
        return
    if trouble is not None:
        yield as_problem("journal", trouble)
    yield from check_project(root)
