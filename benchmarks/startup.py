"""Start-up times, each beside what cannot be avoided, in one run.

Every command is a fresh process. The commands of a comparison take turns, so that a
busy moment of the machine falls on both. What is compared is processor time, which
other programs disturb less; a ratio (or difference) is taken turn by turn.

Run with: make bench
"""

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

TYPER_PROGRAM = """
import typer
app = typer.Typer(no_args_is_help=True)
@app.command()
def new(name: str, defaults: bool = False) -> None:
    "Write a project."
@app.command()
def train(config: str = "config.yaml") -> None:
    "Train it."
app()
"""
PUBLIC_NAMES = "Trainer, LightningModule, LightningDataModule, Callback"

LIGHTGEN = str(Path(sys.executable).with_name("lightgen"))
PYTHON = sys.executable


class Time(NamedTuple):
    """What one run of a command took, in seconds."""

    wall: float
    cpu: float


def timed(command: Sequence[str], folder: Path) -> Time:
    """Run `command` in `folder` and time it, with the processes that it starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return Time(wall, user + system)


def new_project(folder: Path) -> Time:
    """Time the generation of a project where there was none."""
    shutil.rmtree(folder / "mymodel", ignore_errors=True)
    return timed([LIGHTGEN, "new", "mymodel", "--defaults"], folder)


def spread(values: Sequence[float]) -> str:
    """Minimum, median and maximum, in a table's columns."""
    middle = statistics.median(values)
    return f"{min(values):9.3f} {middle:9.3f} {max(values):9.3f}"


def interleaved(
    runs: dict[str, Callable[[], Time]], rounds: int
) -> dict[str, list[Time]]:
    """Times of each run, round by round, after one round that warms the disk cache."""
    times: dict[str, list[Time]] = {name: [] for name in runs}
    for round_index in range(rounds + 1):
        for name, run in runs.items():
            taken = run()
            if round_index:
                times[name].append(taken)
    return times


def main() -> None:
    """Measure everything and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="runs of each command")
    rounds = parser.parse_args().rounds

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)

        def python(code: str) -> Callable[[], Time]:
            return lambda: timed([PYTHON, "-c", code], folder)

        typer_program = folder / "bare.py"
        typer_program.write_text(TYPER_PROGRAM)
        command = interleaved(
            {
                "bare typer program --help": lambda: timed(
                    [PYTHON, str(typer_program), "--help"], folder
                ),
                "lightgen --help": lambda: timed([LIGHTGEN, "--help"], folder),
                "lightgen new mymodel --defaults": lambda: new_project(folder),
            },
            rounds,
        )
        runtime = interleaved(
            {
                "import torch": python("import torch"),
                "... and lightgen_runtime": python("import torch, lightgen_runtime"),
                "... and its public names": python(
                    f"import torch; from lightgen_runtime import {PUBLIC_NAMES}"
                ),
            },
            rounds,
        )

    bare, helped, _ = command.values()
    torch_alone, package, names = runtime.values()
    rows = {
        f"{name}, s": [taken.wall for taken in times]
        for name, times in (command | runtime).items()
    }
    rows["--help: processor time to bare typer's (at most 1.5)"] = [
        ours.cpu / theirs.cpu for ours, theirs in zip(helped, bare, strict=True)
    ]
    rows["lightgen_runtime adds to torch, cpu s (at most 0.060)"] = [
        ours.cpu - theirs.cpu for ours, theirs in zip(package, torch_alone, strict=True)
    ]
    rows["its public names add to torch, cpu s (at most 0.060)"] = [
        ours.cpu - theirs.cpu for ours, theirs in zip(names, torch_alone, strict=True)
    ]
    print(f"{rounds} rounds{'':46}{'min':>9} {'median':>9} {'max':>9}")
    for name, values in rows.items():
        print(f"{name:54}{spread(values)}")


if __name__ == "__main__":
    main()
