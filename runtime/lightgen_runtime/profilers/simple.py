"""How often each action runs and how long it takes."""

from __future__ import annotations

import math
import os
import time
from collections import defaultdict

from lightgen_runtime.profilers.profiler import Profiler

HEADER = ("Action", "Mean duration (s)", "Num calls", "Total time (s)", "Percentage %")
# Columns of the short report.
SHORT = (0, 1, 3)


class SimpleProfiler(Profiler):
    """Record how long each action takes, and report means and totals.

    Args:
        dirpath: Folder of the report; by default the run's `log_dir`, if `filename` is
            given.
        filename: The report's file name, without its ending; None shows it instead.
        extended: Report the number of calls and the share of the time too.
    """

    def __init__(
        self,
        dirpath: str | os.PathLike[str] | None = None,
        filename: str | None = None,
        extended: bool = True,
    ) -> None:
        super().__init__(dirpath, filename)
        self.extended = extended
        self.current_actions: dict[str, float] = {}
        self.recorded_durations: dict[str, list[float]] = defaultdict(list)
        self.start_time = time.perf_counter()

    def start(self, action_name: str) -> None:
        """Note when an action begins.

        Raises:
            ValueError: It has begun already.
        """
        if action_name in self.current_actions:
            raise ValueError(
                f"the action {action_name!r} is started while it is being measured; "
                "stop it first, or use another name"
            )
        self.current_actions[action_name] = time.perf_counter()

    def stop(self, action_name: str) -> None:
        """Record how long an action took, in seconds.

        Raises:
            ValueError: It was never started.
        """
        now = time.perf_counter()
        if action_name not in self.current_actions:
            raise ValueError(f"the action {action_name!r} is stopped but never started")
        duration = now - self.current_actions.pop(action_name)
        self.recorded_durations[action_name].append(duration)

    def summary(self) -> str:
        """Return a table of all actions, those that took longest first."""
        elapsed = time.perf_counter() - self.start_time
        rows = []
        for action, durations in self.recorded_durations.items():
            total, calls = math.fsum(durations), len(durations)
            rows.append((action, total / calls, calls, total, 100 * total / elapsed))
        rows.sort(key=lambda row: row[3 if self.extended else 1], reverse=True)
        calls = sum(row[2] for row in rows)
        table: list[tuple[str, ...]] = [
            HEADER,
            *([("Total", "-", str(calls), f"{elapsed:.5}", "100 %")] * self.extended),
            *(
                (name, f"{mean:.5}", str(calls), f"{total:.5}", f"{share:.5}")
                for name, mean, calls, total, share in rows
            ),
        ]
        if not self.extended:
            table = [tuple(row[column] for column in SHORT) for row in table]
        return f"{self.title()}\n\n{_ruled(table)}\n" if rows else f"{self.title()}\n"


def _ruled(table: list[tuple[str, ...]]) -> str:
    """Return a table as text, its head between rules."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = [
        "|  "
        + "  |  ".join(
            f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)
        )
        + "  |"
        for row in table
    ]
    rule = "-" * len(lines[0])
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])
