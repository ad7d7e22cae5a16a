"""`lightgen lr`: the learning rate of every step of a run, from the code on the disk."""

from __future__ import annotations

import csv
import importlib
import io
from pathlib import Path
from typing import Annotated, Any

import typer

from lightgen import console
from lightgen.blocks.optimizer import OptimizerBlock, read_blocks, with_schedule
from lightgen.blocks.probe import Probed, can_probe, probe
from lightgen.errors import BlockNotFoundError, OutOfDateError, UsageError
from lightgen.project.paths import absolute_path, working_folder
from lightgen.project.root import find_root
from lightgen.project.state import read_state

_WIDTH, _HEIGHT = 64, 12

Against = Annotated[
    str | None,
    typer.Option(
        metavar="SCHEDULE", help="Compare with this schedule; exit 6 if they differ."
    ),
]
CsvPath = Annotated[
    Path | None, typer.Option("--csv", metavar="FILE", help="Write the curve as CSV.")
]
PngPath = Annotated[
    Path | None,
    typer.Option(
        "--png", metavar="FILE", help="Draw the curve; needs the extra `plot`."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def lr(
    context: typer.Context,
    against: Against = None,
    csv_path: CsvPath = None,
    png: PngPath = None,
    as_json: AsJson = False,
) -> None:
    """Show the learning rate of every step of a run, exactly, without training.

    Any other option goes to the project's program, as in --trainer.max_epochs 5.
    """
    root = find_root(working_folder())
    state = read_state(root)
    if not can_probe(root, state.package):
        raise UsageError(
            "the project has no program whose run could be looked at",
            where=str(root),
            accepted=f"`src/{state.package}/__main__.py` and `config.yaml`",
        )
    figures = _matplotlib() if png is not None else None
    probed = probe(root, state.package, overrides=context.args)
    if not probed.curve and probed.total_steps is not None:
        raise UsageError(
            "the run has no optimizer step, so no learning rate",
            where="config.yaml, or the options of this command",
            accepted="at least one epoch, one batch and one optimizer",
        )
    if probed.total_steps is None:
        raise UsageError(
            "the run has no end, so its schedule has no length",
            where="config.yaml",
            accepted="trainer.max_epochs or trainer.max_steps",
            todo="for example: lightgen lr --trainer.max_epochs 10",
        )
    if csv_path is not None:
        _write(csv_path, _as_csv(probed).encode())
    if png is not None:
        _write(png, _as_png(probed, figures))
    difference = None
    if against is not None:
        block = _only_block(read_blocks(state))
        changed = with_schedule(root, block, against)
        other = probe(root, state.package, changed, context.args)
        difference = _difference(probed, other, against, block)
    if as_json:
        console.put_json(
            {
                "command": "lr",
                "total_steps": probed.total_steps,
                "steps_per_epoch": probed.steps_per_epoch,
                "optimizers": probed.optimizers,
                "schedules": probed.schedules,
                "curve": probed.curve,
            }
        )
    else:
        _show(probed)
    if difference is not None:
        raise difference
    if against is not None:
        console.say(f"the same in every step as: {against}")


def _only_block(blocks: list[OptimizerBlock]) -> OptimizerBlock:
    if len(blocks) != 1:
        raise BlockNotFoundError(
            f"the project has {len(blocks)} optimizer blocks to compare with",
            where="option --against",
            accepted="one that lightgen wrote or has adopted",
            todo="lightgen adopt PATH:CLASS",
        )
    return blocks[0]


def _difference(
    probed: Probed, other: Probed, against: str, block: OptimizerBlock
) -> OutOfDateError | None:
    """Build the error that two curves differ; None if they do not."""
    differing = [
        (step, one, two)
        for (step, one), (_, two) in zip(probed.curve, other.curve, strict=True)
        if one != two
    ]
    if not differing:
        return None
    step, one, two = differing[0]
    return OutOfDateError(
        f"the learning rate differs from `{against}` in {len(differing)} steps, first "
        f"in step {step}: {one[0]:.6g}, not {two[0]:.6g}",
        where=block.file,
        todo=f'lightgen regen optimizer --schedule "{against}"',
    )


def _show(probed: Probed) -> None:
    for number, optimizer in enumerate(probed.optimizers):
        groups = optimizer["groups"]
        tensors = sum(group["tensors"] for group in groups)
        console.put(
            f"optimizer {number}: {optimizer['class']}, {len(groups)} "
            f"group{'s' * (len(groups) > 1)}, {tensors} tensors"
        )
    for schedule in probed.schedules:
        monitor = schedule["monitor"]
        watches = f", follows {monitor}: not known before the run" if monitor else ""
        console.put(f"{schedule['class']}, once an {_unit(schedule)}{watches}")
    console.put(f"{probed.total_steps} steps\n")
    rates = [values[0] for _, values in probed.curve]
    for line in plot(rates, probed.total_steps or len(rates)):
        console.put(line)
    console.put(
        f"\nfirst {rates[0]:.6g}  highest {max(rates):.6g}  last {rates[-1]:.6g}"
    )
    groups = [
        (f"optimizer {number}, {group['name'] or 'all'}", group["lr"])
        for number, optimizer in enumerate(probed.optimizers)
        for group in optimizer["groups"]
    ]
    if len({rate for _, rate in groups}) > 1:
        console.put("\nThe curve is the first group's. At step 0:")
        for name, rate in groups:
            console.put(f"  {name:<24} {rate:.6g}")


def _unit(schedule: dict[str, Any]) -> str:
    return "optimizer step" if schedule["interval"] == "step" else "epoch"


def plot(values: list[float], total: int) -> list[str]:
    """Draw values as a curve of characters, with its axes.

    Args:
        values: One for each step.
        total: Number of the last step, for the axis.
    """
    top = max(values) or 1.0
    columns = min(_WIDTH, len(values))
    picked = [
        values[round(i * (len(values) - 1) / max(1, columns - 1))]
        for i in range(columns)
    ]
    levels = [round(value / top * (_HEIGHT - 1)) for value in picked]
    lines = []
    for row in range(_HEIGHT - 1, -1, -1):
        label = f"{top * row / (_HEIGHT - 1):10.3g}" if row % 3 == 2 or not row else ""
        cells = "".join("*" if level == row else " " for level in levels)
        lines.append(f"{label:>10} |{cells}".rstrip())
    lines.append(f"{'':>10} +{'-' * columns}")
    lines.append(f"{'':>12}{0:<{max(1, columns - len(str(total)))}}{total}")
    return lines


def _as_csv(probed: Probed) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    groups = [
        f"{optimizer['class']}.{group['name'] or number}"
        for optimizer in probed.optimizers
        for number, group in enumerate(optimizer["groups"])
    ]
    writer.writerow(["step", *groups])
    writer.writerows([step, *values] for step, values in probed.curve)
    return stream.getvalue()


def _matplotlib() -> Any:
    try:
        return importlib.import_module("matplotlib.figure")
    except ModuleNotFoundError as error:
        raise UsageError(
            "matplotlib is needed to draw, and is not installed",
            where="option --png",
            accepted="--csv and the plot in the terminal need nothing",
            todo='pip install "lightgen[plot]"',
        ) from error


def _as_png(probed: Probed, figures: Any) -> bytes:
    figure = figures.Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    steps = [step for step, _ in probed.curve]
    number = 0
    for optimizer in probed.optimizers:
        for group in optimizer["groups"]:
            label = f"{optimizer['class']} {group['name'] or ''}".strip()
            axes.plot(
                steps, [values[number] for _, values in probed.curve], label=label
            )
            number += 1
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("learning rate")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    if number > 1:
        axes.legend()
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120)
    return stream.getvalue()


def _write(path: Path, content: bytes) -> None:
    target = absolute_path(path, where="options --csv, --png")
    target.write_bytes(content)
    console.say(f"wrote {path}")
