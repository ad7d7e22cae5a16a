"""Lines of texts and bars, laid out without a table of Rich's.

A table measures and pads every cell several times: two thirds of the calls of a drawing.
Imported only once a bar is drawn, as it imports Rich.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from rich.console import ConsoleOptions
from rich.control import strip_control_codes
from rich.progress import Progress, ProgressColumn, Task, TextColumn
from rich.segment import Segment, Segments


class ProgressLines(Progress):
    """A display of text and bar columns that gives each task one line, cut to fit."""

    def get_renderables(self) -> Iterable[Segments]:
        """Return the lines, their columns one below the other."""
        tasks = [task for task in self.tasks if task.visible]
        if not tasks:  # asked for before there is a console, too
            return []
        options = self.console.options
        rows = [
            [self._cell(column, task, options) for column in self.columns]  # type: ignore[arg-type]
            for task in tasks
        ]
        widths = [
            max(cell.width for cell in cells) for cells in zip(*rows, strict=True)
        ]
        return [Segments(_line(row, widths, options.max_width)) for row in rows]

    def _cell(
        self, column: ProgressColumn, task: Task, options: ConsoleOptions
    ) -> _Cell:
        if isinstance(column, TextColumn):
            text = strip_control_codes(column.text_format.format(task=task))
            segment = Segment(text, self.console.get_style(column.style))
            return _Cell([segment], segment.cell_length)
        bar = column(task)
        # Without colors what is not done yet is not drawn, and keeps its place.
        width = self.console.measure(bar, options=options).maximum
        segments = list(self.console.render(bar, options))
        return _Cell(Segment.adjust_line_length(segments, width), width)


class _Cell(NamedTuple):
    segments: list[Segment]
    width: int


def _line(row: list[_Cell], widths: list[int], room: int) -> list[Segment]:
    line: list[Segment] = []
    for cell, width in zip(row[:-1], widths[:-1], strict=True):
        line += [*cell.segments, Segment(" " * (width - cell.width + 1))]
    line += row[-1].segments
    if sum(widths[:-1]) + len(widths) - 1 + row[-1].width > room:
        line = Segment.adjust_line_length(line, room - 1, pad=False)
        line.append(Segment("\u2026"))
    return [*line, Segment.line()]
