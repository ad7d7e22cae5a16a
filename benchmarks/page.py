"""Run the benchmarks of the runtime and write what they found to a page.

    python benchmarks/page.py [--quick] [--output docs/benchmarks.md] [--machine WORDS]
        [--gpu benchmarks/gpu.json]

What the page says around the tables is in `page.md`.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import checkpoint
import choices
import ddp
import memory
import step_overhead
from choices import Comparison
from paired import Spread, versions
from step_overhead import OURS, Row

FOLDER = Path(__file__).parent
PAGE = FOLDER.parent / "docs" / "benchmarks.md"
GPU = FOLDER / "gpu.json"  # measured on another machine
BY_HAND = "by hand"


def times(rows: list[Row], names: list[str]) -> str:
    lines = []
    for row in rows:
        base = f"{row.cells[BY_HAND].microseconds.median:,.0f}"
        limit = "" if row.bound is None else f"{row.bound:.2f}"
        ratios = [row.cells[name].ratio.text() for name in names]
        lines.append([row.workload, row.variant, base, limit, *ratios])
    return table(lines)


def calls(rows: list[Row], names: list[str]) -> str:
    lines = []
    for row in rows:
        counts = [f"{row.cells[name].calls:+,.0f}" for name in names]
        lines.append([row.workload, row.variant, *counts])
    return table(lines)


def comparisons(found: Iterable[Comparison]) -> str:
    return table(
        [comparison.title, name, f"{time.median:,.0f}", ratio.text()]
        for comparison in found
        for name, (time, ratio) in comparison.ways.items()
    )


def on_gpu(found: dict[str, Any]) -> dict[str, Any]:
    """Return what the page takes from the figures of `gpu.py`."""
    rows = [
        [
            row["work"],
            row["way"],
            f"{row['tokens'][1]:.3f}",
            Spread(*row["ratio"]).text(),
            f"{row['peak']:.1f}",
        ]
        for row in found["rows"]
    ]
    copies = [
        [found["copies"]["title"], way, f"{time[1]:,.0f}", Spread(*ratio).text()]
        for way, (time, ratio) in found["copies"]["ways"].items()
    ]
    return {
        "gpu": table(rows),
        "gpu_copies": table(copies),
        "gpu_machine": found["machine"],
        "gpu_tokens": found["tokens"],
        "gpu_versions": found["versions"],
    }


def table(lines: Iterable[list[str]]) -> str:
    """Write the lines of a table; what repeats the line above is left out."""
    text, above = "", ""
    for first, *cells in lines:
        text += "| " + " | ".join(["" if first == above else first, *cells]) + " |\n"
        above = first
    return text


def main() -> None:
    """Measure everything and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds, rough times")
    parser.add_argument("--output", type=Path, default=PAGE, help="where the page goes")
    machine = f"{os.cpu_count()} CPU cores"
    parser.add_argument("--machine", default=machine, help="the machine, in words")
    parser.add_argument("--gpu", type=Path, default=GPU, help="figures of gpu.py")
    options = parser.parse_args()
    quick = options.quick

    # First, while nothing has been left behind by the others.
    held = memory.measure(6 if quick else 20)
    rounds = step_overhead.ROUNDS_IF_QUICK if quick else step_overhead.ROUNDS
    rows = step_overhead.measure(rounds, show=step_overhead.show)
    single, whole = choices.measure(quick, choices.show)
    checkpoints = checkpoint.measure(quick, choices.show)
    processes, started = ddp.measure(quick, choices.show)

    names = [OURS, *(n for n in rows[0].cells if n not in (BY_HAND, OURS))]
    page = (FOLDER / "page.md").read_text(encoding="utf-8")
    text = page.format(
        versions=versions(),
        machine=options.machine,
        quick="A quick run of few rounds: the times are rough.\n" if quick else "",
        names=" | ".join(names),
        rule="|".join(["---"] * len(names)),
        times=times(rows, names),
        calls=calls(rows, names),
        single=comparisons(single),
        whole=comparisons(whole),
        checkpoints=comparisons(checkpoints),
        processes=comparisons(processes),
        started=comparisons([started]),
        copies=table([e.name, f"{e.copies:.2f}"] for e in checkpoint.memory(quick)),
        steps=held.steps,
        first=held.resident[0],
        last=held.resident[-1],
        slope=held.slope(),
        **on_gpu(json.loads(options.gpu.read_text(encoding="utf-8"))),
    )
    options.output.write_text(text, encoding="utf-8")
    print(f"\nWritten to {options.output}")


if __name__ == "__main__":
    main()
