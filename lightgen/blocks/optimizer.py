"""The optimizer block of a module: its record in the project, and its next version."""

from __future__ import annotations

import ast
import stat
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

from lightgen.blocks.merging import emitted, merge_block
from lightgen.blocks.module_rules import check_module
from lightgen.errors import (
    BlockConflictError,
    BlockNotFoundError,
    ProjectStateError,
    UsageError,
    WriteError,
    listing,
)
from lightgen.optim.catalogue import TORCH
from lightgen.optim.options import OptimizerOptions, resolve
from lightgen.optim.spec import OptimSpec, from_record, to_record
from lightgen.project.state import STATE_PATH, ProjectState
from lightgen.project.tree import FileTree, TreeFile, sha256
from lightgen.regen.block import (
    Generated,
    Outcome,
    Place,
    lines_of,
    regenerate,
    status_of,
)
from lightgen.regen.locate import locate, module_classes, parse_file
from lightgen.regen.merge import Conflict, Prefer, Version

METHOD = "configure_optimizers"


@dataclass(frozen=True)
class OptimizerBlock:
    """What a project remembers of one block.

    Attributes:
        file: The module's file, from the project's root.
        class_name: The class.
        spec: What the block was generated from.
        base: The text that was generated.
        adopted: What the method was when it was adopted, as `fingerprint` gives it; ""
            for one that lightgen has written or changed.
    """

    file: str
    class_name: str
    spec: OptimSpec
    base: Generated
    adopted: str = ""

    @property
    def key(self) -> str:
        """Its name among the project's blocks."""
        return f"optimizer {self.file}:{self.class_name}"

    def record(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        adopted = {"adopted": self.adopted} if self.adopted else {}
        return {
            "block": "optimizer",
            "file": self.file,
            "class": self.class_name,
            "spec": to_record(self.spec),
            "base": self.base.text,
            "imports": list(self.base.imports),
            "torch": TORCH,
            **adopted,
        }


@dataclass(frozen=True)
class Regeneration:
    """The next version of a module's file.

    Attributes:
        block: What the project is to remember.
        former: What it remembered; None for a new block.
        before: The file's text now.
        after: The file's text then.
        encoding: How it is encoded.
        outcome: What became of the user's edits.
    """

    block: OptimizerBlock
    former: OptimizerBlock | None
    before: str
    after: str
    encoding: str
    outcome: Outcome

    @property
    def changes(self) -> bool:
        """Whether anything is to be written."""
        return self.before != self.after or self.former != self.block


def read_blocks(state: ProjectState) -> list[OptimizerBlock]:
    """Return the project's optimizer blocks.

    Raises:
        ProjectStateError: A record cannot be read.
    """
    try:
        return [
            _read_block(record)
            for record in state.blocks.values()
            if record.get("block") == "optimizer"
        ]
    except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
        said = error.given if isinstance(error, UsageError) else repr(error)
        raise ProjectStateError(
            f"the record of a block cannot be read: {said}",
            where=STATE_PATH,
            accepted="the file as lightgen wrote it",
            todo=f"restore `{STATE_PATH}` from version control, or remove the record "
            "and adopt the block: lightgen adopt PATH:CLASS",
        ) from error


def _read_block(record: Mapping[str, Any]) -> OptimizerBlock:
    base = Generated(record["base"], tuple(record["imports"]))
    try:
        (class_,) = ast.parse(f"class _:\n{base.text}").body
        imports = ast.parse("\n".join(base.imports)).body
    except SyntaxError as error:
        raise ValueError(f"`base` and `imports` are no Python: {error.msg}") from error
    if not isinstance(class_, ast.ClassDef) or not isinstance(
        class_.body[0], ast.FunctionDef
    ):
        raise ValueError("`base` is no method")
    if not all(isinstance(each, (ast.Import, ast.ImportFrom)) for each in imports):
        raise ValueError("`imports` are no imports")
    spec = from_record(record["spec"])
    adopted = str(record.get("adopted", ""))
    return OptimizerBlock(record["file"], record["class"], spec, base, adopted)


def fingerprint(version: Version) -> str:
    """Return what tells a method's text from any other, line ends aside."""
    return sha256("\n".join(lines_of(version)).encode())


def with_block(state: ProjectState, block: OptimizerBlock) -> ProjectState:
    """Return the state with one block's record replaced."""
    blocks: Mapping[str, Any] = {**state.blocks, block.key: block.record()}
    return replace(state, blocks=blocks)


def find_generated(tree: FileTree, record: Mapping[str, Any]) -> OptimizerBlock | None:
    """Find the block that a template generated from a specification.

    Args:
        tree: The files of a new project.
        record: The specification.
    """
    spec = from_record(record)
    for path, file in tree.items():
        if not path.endswith(".py") or METHOD.encode() not in file.content:
            continue
        source = parse_file(file.content.decode(), path)
        for class_ in module_classes(source):
            location = locate(source, path, class_.name, METHOD)
            block = emitted(spec, location.class_)
            if location.method is None:
                continue
            ours = Version(source, location.method)
            if status_of(ours, block) == "pristine":
                return OptimizerBlock(path, class_.name, spec, block)
    return None


def change_generated(
    tree: FileTree, block: OptimizerBlock, options: OptimizerOptions
) -> tuple[FileTree, OptimizerBlock]:
    """Give the block of a new project other options, before anything is written."""
    text = tree[block.file].content.decode()
    source = parse_file(text, block.file)
    location = locate(source, block.file, block.class_name, METHOD)
    spec = resolve(options, block.spec)
    check_module(spec, location.class_, block.file)
    new = emitted(spec, location.class_)
    place = Place(block.file, block.class_name, METHOD)
    outcome = regenerate(text, place, block.base, new)
    changed = TreeFile(outcome.text.encode(), tree[block.file].executable)
    fresh = replace(block, spec=spec, base=new)
    return {**tree, block.file: changed}, fresh


def with_schedule(root: Path, block: OptimizerBlock, text: str) -> FileTree:
    """Return the module's file with another schedule in its block; writes nothing."""
    content, encoding = read_source(root / block.file, block.file)
    source = parse_file(content, block.file)
    location = locate(source, block.file, block.class_name, METHOD)
    spec = resolve(OptimizerOptions(schedule=[text]), block.spec)
    check_module(spec, location.class_, block.file)
    new = emitted(spec, location.class_)
    place = Place(block.file, block.class_name, METHOD)
    outcome = merge_block(content, place, block.spec, block.base, new, prefer="theirs")
    return {block.file: TreeFile(outcome.text.encode(encoding))}


def plan(
    root: Path,
    state: ProjectState,
    target: str,
    options: OptimizerOptions,
    *,
    prefer: Prefer = "",
    restore: bool = False,
) -> Regeneration:
    """Work out the next version of a block; writes nothing.

    Args:
        root: The project.
        state: Its records.
        target: `PATH:CLASS` or `PATH` of the module; "" for the project's one block.
        options: What to change; nothing said keeps the specification.
        prefer: Whose version of a conflicting part to take; "" for neither.
        restore: Whether to write a block anew that was deleted.

    Raises:
        UsageError: The options or the file do not allow it.
    """
    former, file, class_name = _target(root, state, target)
    text, encoding = read_source(root / file, file)
    source = parse_file(text, file)
    location = locate(source, file, class_name, METHOD)
    spec = resolve(options, former.spec if former else None)
    check_module(spec, location.class_, file)
    new = emitted(spec, location.class_)
    deleted = restore and location.method is None
    outcome = merge_block(
        text,
        Place(file, location.class_.name, METHOD),
        former.spec if former else None,
        former.base if former and not deleted else None,
        new,
        prefer=prefer,
    )
    adopted = former.adopted if former and outcome.text == text else ""
    fresh = OptimizerBlock(file, location.class_.name, spec, new, adopted)
    return Regeneration(fresh, former, text, outcome.text, encoding, outcome)


def conflict_error(file: str, conflicts: tuple[Conflict, ...]) -> BlockConflictError:
    """Build the error that names every conflicting part and both its values."""
    lines = []
    for conflict in conflicts:
        if not conflict.ours and not conflict.theirs:
            lines.append(conflict.slot)
            continue
        lines.append(f"{conflict.slot}")
        lines.append(f"    you:       {_shown(conflict.ours)}")
        lines.append(f"    generator: {_shown(conflict.theirs)}")
    number = len(conflicts)
    parts = f"{number} parts" if number > 1 else "a part"
    return BlockConflictError(
        f"you and the generator changed {parts} of the block:\n  " + "\n  ".join(lines),
        where=f"{file}:{conflicts[0].line}",
        accepted="one of the two, or your own mixture of them",
        todo="--on-conflict ours keeps yours, theirs takes the generator's, sidecar "
        "writes the new block beside the file; nothing was written",
    )


def read_source(path: Path, shown: str) -> tuple[str, str]:
    """Read a Python file as it is, line ends included.

    Returns:
        Its text and its encoding.

    Raises:
        BlockNotFoundError: There is no such file, or it cannot be decoded.
    """
    try:
        return decoded(path.read_bytes(), shown)
    except OSError as error:
        raise _unreadable(error, shown) from error


def refuse_read_only(path: Path, shown: str) -> None:
    """Refuse to replace a file that its owner has protected.

    Raises:
        WriteError: It is one.
    """
    if not path.stat().st_mode & stat.S_IWUSR:
        raise WriteError(
            "the file is read-only",
            where=shown,
            accepted="a file that you may write",
            todo=f"chmod u+w {shown}",
        )


def decoded(content: bytes, shown: str) -> tuple[str, str]:
    """Decode a Python file as Python does; line ends stay.

    Returns:
        Its text and its encoding.

    Raises:
        BlockNotFoundError: It cannot be decoded.
    """
    try:
        encoding, _ = tokenize.detect_encoding(BytesIO(content).readline)
        return content.decode(encoding), encoding
    except (SyntaxError, UnicodeDecodeError) as error:
        raise _unreadable(error, shown) from error


def _unreadable(error: Exception, shown: str) -> BlockNotFoundError:
    return BlockNotFoundError(
        f"the file cannot be read: {error}",
        where=shown,
        accepted="a Python file of the project",
    )


def _target(
    root: Path, state: ProjectState, target: str
) -> tuple[OptimizerBlock | None, str, str]:
    blocks = read_blocks(state)
    if not target:
        if len(blocks) == 1:
            return blocks[0], blocks[0].file, blocks[0].class_name
        names = [f"{block.file}:{block.class_name}" for block in blocks]
        raise BlockNotFoundError(
            (
                "the project has no optimizer block yet"
                if not blocks
                else f"the project has {len(blocks)} optimizer blocks"
            ),
            where="option --module",
            accepted=listing(names) if names else "PATH:CLASS of a LightningModule",
            todo=f"--module {names[0]}" if names else "lightgen adopt PATH:CLASS",
        )
    path, _, class_name = target.partition(":")
    absolute = Path(path) if Path(path).is_absolute() else root / path
    file = absolute.resolve()
    if not file.is_relative_to(root.resolve()):
        raise BlockNotFoundError(
            f"`{path}` is outside of the project",
            where="option --module",
            accepted=f"a file in {root}",
        )
    relative = file.relative_to(root.resolve()).as_posix()
    known = [
        block
        for block in blocks
        if block.file == relative and class_name in ("", block.class_name)
    ]
    former = known[0] if len(known) == 1 else None
    return former, relative, class_name or (former.class_name if former else "")


def _shown(text: str) -> str:
    lines = text.splitlines()
    if not lines:
        return "(nothing: taken out)"
    return lines[0] if len(lines) == 1 else f"{lines[0]} ... ({len(lines)} lines)"
