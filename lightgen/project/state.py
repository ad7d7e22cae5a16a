"""`.lightgen/`: what a project was made from.

`state.json` has one schema, defined here; `base/<path>.base` is the pristine text of
each file as the template produced it. The suffix keeps tools from taking it for code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lightgen import __version__
from lightgen.errors import ProjectStateError
from lightgen.project.tree import FileTree, TreeFile, sha256, stays_inside

STATE_FOLDER = ".lightgen"
STATE_PATH = f"{STATE_FOLDER}/state.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class TemplateRecord:
    """Which template a project was made from.

    Attributes:
        id: Name of a bundled template, or the last part of a foreign one's address.
        version: The template's own version; empty when it states none.
        digest: Fingerprint of the template's files.
        source: `bundled`, an absolute folder, or the address of a repository.
    """

    id: str
    version: str
    digest: str
    source: str


@dataclass(frozen=True)
class ProjectState:
    """The contents of `state.json`.

    Attributes:
        generator: Version of lightgen that wrote the project.
        package: The import package that `lightgen train` starts.
        template: Where the files came from.
        answers: Answer by question, as the template saw them; secrets are left out.
        files: SHA-256 of the pristine file, by path.
        blocks: Records of regenerated blocks, by block.
        schema: Version of this layout.
    """

    generator: str
    package: str
    template: TemplateRecord
    answers: Mapping[str, Any]
    files: Mapping[str, str]
    blocks: Mapping[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA_VERSION


NO_TEMPLATE = TemplateRecord(id="", version="", digest="", source="none")
"""The record of a project that no template made."""


def plain_state() -> ProjectState:
    """Return the state of a folder that lightgen did not make and now works in."""
    return ProjectState(__version__, "", NO_TEMPLATE, answers={}, files={})


def pristine_hashes(tree: FileTree) -> dict[str, str]:
    """Return the SHA-256 of each file, as `ProjectState.files` wants it."""
    return {path: sha256(file.content) for path, file in tree.items()}


def state_files(state: ProjectState, tree: FileTree) -> FileTree:
    """Build the files of `.lightgen/` for a project with the files of `tree`."""
    files = {STATE_PATH: TreeFile(state_json(state))}
    for path, file in tree.items():
        files[base_path(path)] = TreeFile(file.content)
    return files


def base_path(path: str) -> str:
    """Return where the pristine text of a file is."""
    return f"{STATE_FOLDER}/base/{path}.base"


def state_json(state: ProjectState) -> bytes:
    """Return the content of `state.json`."""
    text = json.dumps(asdict(state), indent=2, sort_keys=True, default=str)
    return f"{text}\n".encode()


def read_state(root: Path) -> ProjectState:
    """Read the state of the project at `root`.

    Raises:
        ProjectStateError: If the file is damaged or of a newer layout.
    """
    path = root / STATE_PATH
    try:
        text = path.read_text(encoding="utf-8")
        _refuse_conflict_markers(text, path)
        record = json.loads(text)
        schema = record["schema"]
        if schema != SCHEMA_VERSION:
            raise ProjectStateError(
                f"the project's records have layout {schema!r}",
                where=str(path),
                accepted=f"layout {SCHEMA_VERSION}",
                todo="install the version of lightgen named in `generator` there",
            )
        template = TemplateRecord(**record.pop("template"))
        state = ProjectState(template=template, **record)
        _check_contents(state)
        return state
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ProjectStateError(
            f"the project's records cannot be read: {error}",
            where=str(path),
            accepted="the file as `lightgen new` wrote it",
            todo=f"restore `{STATE_PATH}` from version control",
        ) from error


def _refuse_conflict_markers(text: str, path: Path) -> None:
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("<<<<<<< "):
            raise ProjectStateError(
                "the project's records hold both sides of an unfinished merge",
                where=f"{path}:{number}",
                accepted="one side of it",
                todo=f"git checkout --ours {STATE_PATH}, or --theirs: whichever side "
                "you also keep the module and `.lightgen/base` of",
            )


def _check_contents(state: ProjectState) -> None:
    """Refuse records that later code would stumble over, or leave the project by."""
    for name in ("answers", "files", "blocks"):
        if not isinstance(getattr(state, name), dict):
            raise TypeError(f"`{name}` is no object")
    for key, block in state.blocks.items():
        if not isinstance(block, dict):
            raise TypeError(f"the block `{key}` is no object")
    paths = [*state.files, *(b["file"] for b in state.blocks.values() if "file" in b)]
    for path in paths:
        if not isinstance(path, str) or not stays_inside(path):
            raise ValueError(f"{path!r} leads out of the project")
