"""Start-up times, each beside what cannot be avoided, in one run.

Every command is a fresh process. The commands of a comparison take turns, so that a
busy moment of the machine falls on both, and a ratio is taken turn by turn.

Run with: make bench
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

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
# What an import adds is timed inside one process: two whole imports of torch differ by
# more than that.
IMPORTS = """
import time
start = time.perf_counter()
import torch
torch_is_there = time.perf_counter()
import lightgen_runtime
package_is_there = time.perf_counter()
from lightgen_runtime import Trainer, LightningModule, LightningDataModule, Callback
names_are_there = time.perf_counter()
print(torch_is_there - start)
print(package_is_there - torch_is_there)
print(names_are_there - torch_is_there)
"""

LIGHTGEN = str(Path(sys.executable).with_name("lightgen"))
PYTHON = sys.executable


def seconds(command: Sequence[str], folder: Path) -> float:
    """Wall time of one run of `command` in `folder`."""
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def seconds_of_new(folder: Path) -> float:
    """Wall time of generating a project where there was none."""
    shutil.rmtree(folder / "mymodel", ignore_errors=True)
    return seconds([LIGHTGEN, "new", "mymodel", "--defaults"], folder)


def seconds_of_imports(folder: Path) -> list[float]:
    """What torch, then the runtime, then its public names take to import."""
    command = [PYTHON, "-c", IMPORTS]
    done = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE)
    return [float(line) for line in done.stdout.split()]


def spread(values: Sequence[float]) -> str:
    """Minimum, median and maximum, in a table's columns."""
    middle = statistics.median(values)
    return f"{min(values):9.3f} {middle:9.3f} {max(values):9.3f}"


def measure(folder: Path) -> dict[str, float]:
    """One round: every command once, and what follows from their times."""
    program = folder / "bare.py"
    program.write_text(TYPER_PROGRAM)
    bare = seconds([PYTHON, str(program), "--help"], folder)
    ours = seconds([LIGHTGEN, "--help"], folder)
    new = seconds_of_new(folder)
    torch, package, names = seconds_of_imports(folder)
    return {
        "bare typer program --help, s": bare,
        "lightgen --help, s": ours,
        "ratio of the two (at most 1.5)": ours / bare,
        "lightgen new mymodel --defaults, s (at most 1.5)": new,
        "import torch, s": torch,
        "lightgen_runtime adds, s (at most 0.060)": package,
        "lightgen_runtime and its public names add, s": names,
    }


def main() -> None:
    """Measure some rounds, after one that warms the disk cache, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="runs of each command")
    rounds = parser.parse_args().rounds

    with tempfile.TemporaryDirectory() as scratch:
        measured = [measure(Path(scratch)) for _ in range(rounds + 1)][1:]

    print(f"{f'{rounds} rounds':50}{'min':>9} {'median':>9} {'max':>9}")
    for name in measured[0]:
        print(f"{name:50}{spread([one[name] for one in measured])}")


if __name__ == "__main__":
    main()
