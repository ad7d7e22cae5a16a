"""A piece of Python whose syntax tree can be cut by characters.

Python counts columns in bytes of UTF-8 and lines without their ends; everything here
counts characters from the start of the text, so that any text can be spliced.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from dataclasses import dataclass
from functools import cached_property

from lightgen.regen.names import Names


@dataclass(frozen=True)
class Span:
    """Characters from `start` up to but not including `end`."""

    start: int
    end: int


class SourceText:
    """Python source, its tree, and where in the text each node is.

    Args:
        text: The source; any line ends.

    Attributes:
        text: The source.
        tree: Its syntax tree.
        lines: Its lines, with their ends.

    Raises:
        SyntaxError: It is no Python.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.tree = ast.parse(text)
        self.lines = re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+$", text)
        self._starts = [0]
        for line in self.lines:
            self._starts.append(self._starts[-1] + len(line))

    def span(self, node: ast.expr | ast.stmt | ast.keyword) -> Span:
        """Return the characters of a node."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = self._offset(node.lineno, node.col_offset)
        return Span(start, self._offset(node.end_lineno, node.end_col_offset))

    def of(self, node: ast.expr | ast.stmt | ast.keyword) -> str:
        """Return the text of a node."""
        span = self.span(node)
        return self.text[span.start : span.end]

    @cached_property
    def names(self) -> Names:
        """What its imported names stand for."""
        return Names(self.tree)

    def shape(self, node: ast.expr | ast.stmt) -> str:
        """Return what a node means: the same for the same code, however it is laid out.

        A name of torch's is the same under any alias.
        """
        return self.names.shape(node)

    def line_start(self, offset: int) -> int:
        """Return where the line of a character begins."""
        return max(start for start in self._starts if start <= offset)

    def line_end(self, offset: int) -> int:
        """Return where the line of a character ends, behind its line break."""
        return next((s for s in self._starts if s > offset), len(self.text))

    def indent(self, offset: int) -> str:
        """Return the white space that the line of a character begins with."""
        line = self.text[self.line_start(offset) :]
        return line[: len(line) - len(line.lstrip(" \t"))]

    def starts_line(self, offset: int) -> bool:
        """Tell whether only white space stands before a character on its line."""
        return not self.text[self.line_start(offset) : offset].strip()

    @cached_property
    def comments(self) -> list[Span]:
        """Where each comment is."""
        found = []
        reader = io.StringIO(self.text, newline="").readline
        for token in tokenize.generate_tokens(reader):
            if token.type == tokenize.COMMENT:
                start = self._starts[token.start[0] - 1] + token.start[1]
                found.append(Span(start, start + len(token.string)))
        return found

    def comments_in(self, span: Span) -> list[str]:
        """Return the comments inside a span."""
        return [
            self.text[found.start : found.end]
            for found in self.comments
            if span.start <= found.start < span.end
        ]

    @property
    def newline(self) -> str:
        """The line break that the text uses."""
        match = re.search(r"\r\n|\r|\n", self.text)
        return match[0] if match else "\n"

    def _offset(self, line: int, column: int) -> int:
        text = self.lines[line - 1] if line <= len(self.lines) else ""
        return self._starts[line - 1] + len(text.encode()[:column].decode())
