"""Edits of a text by span, which keep every comment that a person wrote."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from lightgen.regen.text import SourceText, Span


@dataclass(frozen=True)
class Edit:
    """Put `text` in the place of a span.

    Attributes:
        span: What goes; empty for an insertion.
        text: What comes.
        order: Among insertions at one place, which comes first.
    """

    span: Span
    text: str
    order: int = 0


def apply_edits(text: str, edits: list[Edit]) -> str:
    """Apply edits that do not overlap, whatever their order."""
    for edit in sorted(
        edits, key=lambda e: (e.span.start, e.span.end, e.order), reverse=True
    ):
        text = text[: edit.span.start] + edit.text + text[edit.span.end :]
    return text


def without_overlaps(edits: list[Edit]) -> list[Edit]:
    """Make one removal of removals that share a comma or a space."""
    result: list[Edit] = []
    for edit in sorted(edits, key=lambda e: (e.span.start, e.span.end)):
        last = result[-1] if result else None
        if last and not edit.text and not last.text and edit.span.start < last.span.end:
            end = max(last.span.end, edit.span.end)
            result[-1] = Edit(Span(last.span.start, end), "")
        else:
            result.append(edit)
    return result


def overlapping(edits: list[Edit]) -> bool:
    """Tell whether two edits want the same characters."""
    spans = sorted((e.span.start, e.span.end) for e in edits)
    return any(a_end > b for (_, a_end), (b, _) in pairwise(spans))


def reindented(text: str, old: str, new: str, source: SourceText) -> str:
    """Move the lines behind the first from one indentation to another's.

    Args:
        text: Lines of generated code, indented by fours.
        old: Indentation of the line that it comes from.
        new: Indentation of the line that it goes to.
        source: Where it goes: its line breaks and its unit of indentation.
    """
    unit = indent_unit(source)
    lines = re.split(r"\r\n|\r|\n", text)
    moved = [lines[0]]
    for line in lines[1:]:
        body = line.lstrip(" ")
        levels = (len(line) - len(body) - len(old)) // 4
        moved.append(new + unit * max(levels, 0) + body if body else "")
    return source.newline.join(moved)


def indent_unit(source: SourceText) -> str:
    """Return what the text indents by: a tab, or some spaces."""
    found = re.search(r"^([ \t]+)\S", source.text, re.MULTILINE)
    lead = found[1] if found else "    "
    return "\t" if lead.startswith("\t") else "    " if len(lead) % 4 == 0 else lead


def removal(source: SourceText, span: Span) -> Edit:
    """Take out an argument, an entry or a statement; its comments stay, on their own.

    A comma behind it goes too; what stands alone on its lines goes with them.
    """
    text = source.text
    end = _behind_comma(text, span.end)
    line_end = source.line_end(max(end - 1, span.start))
    rest = text[end:line_end]
    alone = source.starts_line(span.start) and (
        not rest.strip() or rest.lstrip().startswith("#")
    )
    if not alone:
        start = span.start
        if end == span.end:  # the last of a line: its comma stands before it
            before = re.search(r",\s*$", text[:start])
            start = before.start() if before else start
        else:
            end += len(text[end:]) - len(text[end:].lstrip(" "))
        return Edit(Span(start, end), "")
    start = source.line_start(span.start)
    indent = source.indent(span.start)
    kept = source.comments_in(Span(span.start, line_end))
    lines = "".join(f"{indent}{comment}{source.newline}" for comment in kept)
    return Edit(Span(start, line_end), lines)


def insertion_after(
    source: SourceText, span: Span, text: str, order: int
) -> list[Edit]:
    """Put an argument or an entry behind another one.

    Args:
        source: Where.
        span: The one before.
        text: What to insert, its further lines indented for this place.
        order: Place among several insertions here.
    """
    end = _behind_comma(source.text, span.end)
    has_comma = end != span.end
    if not source.starts_line(span.start):
        lead = " " if has_comma else ", "
        tail = "," if has_comma else ""
        return [Edit(Span(end, end), f"{lead}{text}{tail}", order)]
    at = source.line_end(max(end - 1, span.start))
    indent = source.indent(span.start)
    edits = [Edit(Span(at, at), f"{indent}{text},{source.newline}", order)]
    if not has_comma:
        edits.append(Edit(Span(span.end, span.end), ",", -1))
    return edits


def insertion_before(
    source: SourceText, span: Span, text: str, order: int
) -> list[Edit]:
    """Put an argument or an entry before another one."""
    if not source.starts_line(span.start):
        return [Edit(Span(span.start, span.start), f"{text}, ", order)]
    at = source.line_start(span.start)
    indent = source.indent(span.start)
    return [Edit(Span(at, at), f"{indent}{text},{source.newline}", order)]


def above_comments(source: SourceText, start: int) -> int:
    """Return where the comments begin that stand right above a statement, or it."""
    place = source.line_start(start)
    while place:
        above = source.line_start(place - 1)
        if not source.text[above:place].lstrip().startswith("#"):
            break
        place = above
    return place


def _behind_comma(text: str, end: int) -> int:
    match = re.compile(r"[ \t]*(?:\r\n|\r|\n)?[ \t]*,").match(text, end)
    return match.end() if match else end
