"""Taking in a `configure_optimizers` that somebody wrote by hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lightgen.blocks.merging import emitted, reading_of
from lightgen.blocks.module_rules import check_module
from lightgen.blocks.optimizer import (
    METHOD,
    OptimizerBlock,
    fingerprint,
    read_blocks,
    read_source,
)
from lightgen.errors import AdoptionError, BlockNotFoundError, UsageError
from lightgen.optim.options import as_options
from lightgen.optim.reading.problems import Remark
from lightgen.project.state import ProjectState
from lightgen.regen.locate import locate, parse_file
from lightgen.regen.merge import Version


@dataclass(frozen=True)
class Adoption:
    """A block to be remembered.

    Attributes:
        block: What the project is to remember.
        known: Whether it remembers just that already.
        notes: What the specification says in other words than the code.
    """

    block: OptimizerBlock
    known: bool
    notes: tuple[Remark, ...]

    @property
    def options(self) -> list[str]:
        """The words of a command line that ask for the same."""
        return as_options(self.block.spec)


def adopt(
    root: Path, state: ProjectState, target: Path, class_name: str, *, force: bool
) -> Adoption:
    """Read a method and work out its record; writes nothing.

    Args:
        root: The project.
        state: Its records.
        target: The module's file, absolute.
        class_name: The class; "" for the only LightningModule of the file.
        force: Whether to replace a record that says something else.

    Raises:
        UsageError: The file does not allow it.
        AdoptionError: No specification can say what the method does.
    """
    file = _in_project(root, target)
    text, _ = read_source(target, file)
    source = parse_file(text, file)
    location = locate(source, file, class_name, METHOD)
    class_ = location.class_
    if location.method is None:
        raise BlockNotFoundError(
            f"`{class_.name}` has no method `{METHOD}` to read",
            where=f"{file}:{class_.lineno}",
            accepted="a class that has the method itself",
            todo=f"write a new one: lightgen regen optimizer --module {file}:"
            f"{class_.name}",
        )
    reading = reading_of(source, location)
    if reading.spec is None:
        raise _inexpressible(file, class_.name, reading.problems)
    check_module(reading.spec, class_, file)
    base = emitted(reading.spec, class_)
    mine = fingerprint(Version(source, location.method))
    block = OptimizerBlock(file, class_.name, reading.spec, base, mine)
    former = next((b for b in read_blocks(state) if b.key == block.key), None)
    known = former is not None and emitted(former.spec, class_).text == base.text
    if former is not None and not known and not force:
        raise UsageError(
            f"`{class_.name}.{METHOD}` is recorded already, and its code says something "
            "else now",
            where=f"{file}:{location.method.lineno}",
            accepted="your changes as edits, which regen keeps",
            todo="--force records what the code says now",
        )
    return Adoption(block, known, tuple(reading.notes))


def _in_project(root: Path, target: Path) -> str:
    file = target.resolve()
    if not file.is_relative_to(root.resolve()):
        raise BlockNotFoundError(
            f"`{target}` is outside of the project",
            where="argument MODULE",
            accepted=f"a file in {root}",
            todo=f"cd {file.parent}, then try again",
        )
    return file.relative_to(root.resolve()).as_posix()


def _inexpressible(file: str, class_name: str, problems: list[Remark]) -> AdoptionError:
    lines = []
    for problem in problems:
        lines.append(f"{file}:{problem.line}: {problem.text}")
        lines.append(f"    instead: {problem.todo}")
    number = "one place" if len(problems) == 1 else f"{len(problems)} places"
    return AdoptionError(
        f"options cannot say {number} of `{class_name}.{METHOD}`:\n  "
        + "\n  ".join(lines),
        where=f"{file}:{problems[0].line}",
        accepted="optimizers and schedulers of torch, made and returned in the method",
        todo="change these lines and try again; or write the block anew beside yours: "
        f"rename the method, then lightgen regen optimizer --module {file}:{class_name}",
    )
