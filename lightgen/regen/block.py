"""One block of one file: what was generated, what is there, and the next version."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from lightgen.errors import BlockNotFoundError, VerificationError
from lightgen.regen.edits import (
    Edit,
    apply_edits,
    overlapping,
    reindented,
    without_overlaps,
)
from lightgen.regen.flow import assigned_names, unassigned_names
from lightgen.regen.imports import import_edits
from lightgen.regen.locate import Location, locate, parse_file
from lightgen.regen.merge import Conflict, Prefer, Version, merge_versions
from lightgen.regen.nodes import is_docstring
from lightgen.regen.rename import renamed_variables, with_names
from lightgen.regen.text import SourceText, Span

Status = Literal["pristine", "formatted", "edited", "deleted"]
Check = Callable[[ast.FunctionDef], str | None]


@dataclass(frozen=True)
class Generated:
    """A method as the generator wrote it.

    Attributes:
        text: The method, indented by four spaces.
        imports: What it needs at the top of its file.
    """

    text: str
    imports: tuple[str, ...] = ()

    @property
    def version(self) -> Version:
        """The method, parsed."""
        return _version(SourceText(f"class _:\n{self.text}"))


@dataclass(frozen=True)
class Place:
    """Where a block is.

    Attributes:
        path: The file, as the user would write it.
        class_name: The class; "" for the only LightningModule.
        method: The method.
    """

    path: str
    class_name: str
    method: str


@dataclass(frozen=True)
class Outcome:
    """What became of a file.

    Attributes:
        text: The whole new text; the old one if there are conflicts.
        status: What the user had done to the block before.
        conflicts: Slots that both sides changed.
    """

    text: str
    status: Status
    conflicts: tuple[Conflict, ...] = ()


def regenerate(
    text: str,
    place: Place,
    base: Generated | None,
    new: Generated,
    *,
    prefer: Prefer = "",
    check: Check = lambda method: None,
) -> Outcome:
    """Bring the next version of a block into a file, keeping what the user did.

    Args:
        text: The file.
        place: Where the block is in it.
        base: What was generated last; None to put the method in for the first time.
        new: What is generated now.
        prefer: Whose version of a conflicting slot to take; "" for neither.
        check: Says what is wrong with a merged method, if something is.

    Raises:
        BlockNotFoundError: The block is not where it should be.
        VerificationError: The result is not what it should be; a defect of ours.
    """
    source = parse_file(text, place.path)
    location = locate(source, place.path, place.class_name, place.method)
    if location.method is None:
        if base is not None:
            raise _deleted(place, location)
        merged = _inserted(source, location, new)
        return Outcome(_with_imports(merged, new, None), "deleted")
    if base is None:
        raise _unknown(place, location)
    ours = Version(source, location.method)
    status = status_of(ours, base)
    base_version, new_version = _renamed(base, new, ours)
    merge = merge_versions(base_version, ours, new_version, prefer)
    edits = without_overlaps(merge.edits + _text_edits(base_version, ours, new_version))
    conflicts = list(merge.conflicts)
    merged = text
    if not conflicts:
        if overlapping(edits):
            conflicts.append(_whole(ours, new))
        else:
            merged = apply_edits(text, edits)
            fault = _fault(merged, place, base_version, new_version, check)
            if fault is not None:
                conflicts.append(Conflict(fault, location.method.lineno, "", ""))
    if conflicts:
        return Outcome(text, status, tuple(conflicts))
    merged = _with_imports(merged, new, base)
    _prove(text, merged, place)
    return Outcome(merged, status)


def status_of(ours: Version, base: Generated) -> Status:
    """Tell what a user has done to a block since it was generated."""
    source = ours.source
    if lines_of(ours) == _lines(base.text.rstrip("\n")):
        return "pristine"
    span = method_span(source, ours.method)
    version = base.version
    same = ast.dump(ours.method) == ast.dump(version.method)
    comments = source.comments_in(span) == version.source.comments_in(
        version.source.span(version.method)
    )
    return "formatted" if same and comments else "edited"


def lines_of(version: Version) -> list[str]:
    """Return the lines of a method as they stand, without their ends."""
    span = method_span(version.source, version.method)
    return _lines(version.source.text[span.start : span.end])


def _lines(text: str) -> list[str]:
    return re.split(r"\r\n|\r|\n", text)


def _version(source: SourceText) -> Version:
    class_ = source.tree.body[0]
    assert isinstance(class_, ast.ClassDef)
    method = class_.body[0]
    assert isinstance(method, ast.FunctionDef)
    return Version(source, method)


def _renamed(base: Generated, new: Generated, ours: Version) -> tuple[Version, Version]:
    renamed = renamed_variables(base.version.statements, ours.statements)
    return (
        _version(with_names(base.version.source, renamed)),
        _version(with_names(new.version.source, renamed)),
    )


def _text_edits(base: Version, ours: Version, new: Version) -> list[Edit]:
    """Bring in the docstring and the annotation, where the user left them alone."""
    edits = []
    parts = [[_docstring(v), v.method.returns] for v in (base, ours, new)]
    for was, mine, now in zip(*parts, strict=True):
        if was is None or mine is None or now is None:
            continue
        if ast.dump(was) == ast.dump(mine) != ast.dump(now):
            indent = ours.source.indent(ours.source.span(mine).start)
            text = reindented(new.source.of(now), "        ", indent, ours.source)
            edits.append(Edit(ours.source.span(mine), text))
    return edits


def _docstring(version: Version) -> ast.expr | None:
    first = version.method.body[0]
    if is_docstring(first):
        assert isinstance(first, ast.Expr)
        return first.value
    return None


def _fault(
    merged: str, place: Place, base: Version, new: Version, check: Check
) -> str | None:
    """Say what is wrong with a merged method, if something is."""
    try:
        source = SourceText(merged)
    except SyntaxError as error:
        return f"the merged block would be no Python: {error.msg}"
    method = locate(source, place.path, place.class_name, place.method).method
    assert method is not None
    names = assigned_names(base.method) | assigned_names(new.method)
    unassigned = unassigned_names(method, names | assigned_names(method))
    if unassigned:
        return f"your code reads `{unassigned[0]}`, which the new block does not have there"
    return check(method)


def _inserted(source: SourceText, location: Location, new: Generated) -> str:
    """Put the method at the end of the class."""
    last = location.class_.body[-1]
    at = source.line_end(source.span(last).end - 1)
    indent = source.indent(source.span(location.class_.body[0]).start)
    text = reindented(new.text.lstrip(" ").rstrip("\n"), "    ", indent, source)
    lead = "" if source.text[:at].endswith(("\n", "\r")) else source.newline
    line = f"{lead}{source.newline}{indent}{text}{source.newline}"
    return apply_edits(source.text, [Edit(Span(at, at), line)])


def _with_imports(text: str, new: Generated, base: Generated | None) -> str:
    source = SourceText(text)
    dropped = list(base.imports) if base is not None else []
    return apply_edits(text, import_edits(source, list(new.imports), dropped))


def _prove(before: str, after: str, place: Place) -> None:
    """Check that nothing outside the block and the imports changed.

    Raises:
        VerificationError: Something did.
    """
    if _outside(before, place) != _outside(after, place):
        raise VerificationError(
            "the new block would change the file outside of it",
            where=place.path,
            accepted="a change of the block and of imports only",
            todo="nothing was written; report this with the file",
        )


def _outside(text: str, place: Place) -> str:
    """Return a file without its block and the lines of its imports."""
    source = SourceText(text)
    location = locate(source, place.path, place.class_name, place.method)
    assert location.method is not None
    cuts = [method_span(source, location.method)]
    for node in source.tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            span = source.span(node)
            cuts.append(Span(span.start, source.line_end(span.end - 1)))
    return apply_edits(text, without_overlaps([Edit(cut, "") for cut in cuts]))


def method_span(source: SourceText, method: ast.FunctionDef) -> Span:
    """Return the lines of a method, its decorators included, without the last end."""
    nodes: list[ast.stmt | ast.expr] = [method, *method.decorator_list]
    first = min(source.span(node).start for node in nodes)
    return Span(source.line_start(first), source.span(method).end)


def _whole(ours: Version, new: Generated) -> Conflict:
    return Conflict(
        "the whole block",
        ours.method.lineno,
        ours.source.of(ours.method),
        new.text,
    )


def _deleted(place: Place, location: Location) -> BlockNotFoundError:
    return BlockNotFoundError(
        f"`{location.class_.name}.{place.method}` was there and is gone",
        where=f"{place.path}:{location.class_.lineno}",
        accepted="the method, edited or not",
        todo="--restore writes it anew",
    )


def _unknown(place: Place, location: Location) -> BlockNotFoundError:
    assert location.method is not None
    return BlockNotFoundError(
        f"`{location.class_.name}.{place.method}` was not written by lightgen",
        where=f"{place.path}:{location.method.lineno}",
        accepted="a block that lightgen wrote or has adopted",
        todo=f"lightgen adopt {place.path}:{location.class_.name}",
    )
