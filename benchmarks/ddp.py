"""What a step of two processes costs beside a hand-written DDP loop, and how they start.

    python benchmarks/ddp.py [--quick]

Two processes talk by gloo. In both of them all contenders take turns, each trains the same
net on the same batches, and that all end with the same weights is checked. Starts are whole
commands, from the call to the exit, with one training step between.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.distributed as dist

import lightgen_runtime
from choices import Comparison, show
from contenders import trainers, with_ddp
from contenders.workloads import (
    ACCUMULATED,
    BARE,
    MEDIUM,
    TINY,
    TRANSFORMER,
    Batches,
    Contender,
    Variant,
    Workload,
)
from paired import Spread, one_thread, paired
from step_overhead import OURS

FOLDER = Path(__file__).parent
PROCESSES = 2
ROUNDS, ROUNDS_IF_QUICK = 20, 1
STARTS, STARTS_IF_QUICK = 9, 1
STEPS_IF_QUICK = 8  # of each process; whole windows
BY_HAND = "by hand"
ROWS = [(TINY, BARE), (TINY, ACCUMULATED), (MEDIUM, BARE), (TRANSFORMER, BARE)]
# The step of a script, and what is around it: by hand, and with a Trainer.
NET = """
import torch
from torch import nn
from torch.utils.data import DataLoader

torch.manual_seed(0)
net = nn.Linear(16, 4)
rows = torch.ones(16, 16)
"""
# torch aborts one such program in five if threads of the group are left at its end. So
# nothing may hold the group: no reducer, and no defaults of functions, as there would be if
# torch imported `nn.functional` later.
HAND_WRITTEN = NET + """
import gc

import torch.distributed as dist
import torch.distributed.nn.functional
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DistributedSampler

dist.init_process_group("gloo")
ddp = DistributedDataParallel(net)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for batch in DataLoader(rows, 8, sampler=DistributedSampler(rows)):
    optimizer.zero_grad()
    ddp(batch).mean().backward()
    optimizer.step()
del ddp
gc.collect()
dist.destroy_process_group()
"""
WITH_TRAINER = NET + """
from lightgen_runtime import LightningModule, Trainer

class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = net

    def training_step(self, batch, batch_idx):
        return self.net(batch).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

if __name__ == "__main__":
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        max_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Module(), DataLoader(rows, 8, shuffle=True))
"""


def contenders() -> dict[str, Contender]:
    """Return what is installed, the hand-written loop first, then ours."""
    flags = {"devices": PROCESSES, "strategy": "ddp", "use_distributed_sampler": False}
    found: dict[str, Contender] = {
        BY_HAND: with_ddp.run,
        OURS: partial(trainers.run, lightgen_runtime, **flags),
    }
    if find_spec("lightning"):
        lightning = import_module("lightning")
        found["Lightning"] = partial(trainers.run, lightning, **flags)
    if find_spec("accelerate"):
        found["Accelerate"] = import_module("contenders.with_accelerate").run
    return found


def compare(
    workload: Workload,
    variant: Variant,
    runs: dict[str, Contender],
    quick: bool,
) -> Comparison:
    """Measure all contenders at one piece of work, in this process and the others."""
    rounds = ROUNDS_IF_QUICK if quick else ROUNDS
    # Long enough that what processes tell each other once an epoch is not a step's cost.
    steps = STEPS_IF_QUICK if quick else workload.steps
    batches = Batches(workload.batch, steps * PROCESSES)
    batches.batches = batches.batches[dist.get_rank() :: PROCESSES]
    expected = runs[BY_HAND](workload, variant, batches).weights
    for name, run in runs.items():
        if not torch.equal(run(workload, variant, batches).weights, expected):
            raise SystemExit(
                f"{workload.name}, {variant.name}: {name} trains otherwise"
            )

    def seconds(run: Contender) -> float:
        dist.barrier()
        return run(workload, variant, batches).seconds

    taken = paired({name: partial(seconds, run) for name, run in runs.items()}, rounds)
    ways = {
        name: (Spread(*(1e6 * value / len(batches) for value in times)), ratio)
        for name, (times, ratio) in taken.items()
    }
    return Comparison(f"{workload.name}, {variant.name}", "us", ways)


def work(quick: bool) -> list[Comparison]:
    """Measure every row, as one of the processes."""
    one_thread()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    dist.init_process_group("gloo")
    runs = contenders()
    found = [compare(*row, runs, quick) for row in ROWS]
    dist.destroy_process_group()
    return found


def in_processes(script: str, *arguments: str) -> list[str]:
    """Return torchrun's command for a script."""
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    return [sys.executable, *start, str(PROCESSES), script, *arguments]


def steps_of_processes(quick: bool) -> list[Comparison]:
    """Start the processes that measure the steps; return what the first has found."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "found.json"
        worker = ["--output", str(output), *(["--quick"] if quick else [])]
        run(in_processes(__file__, *worker), Path(folder))
        found = json.loads(output.read_text())
    return [
        Comparison(
            title, unit, {n: (Spread(*t), Spread(*r)) for n, (t, r) in ways.items()}
        )
        for title, unit, ways in found
    ]


def run(command: list[str], folder: Path) -> float:
    """Return the seconds of a whole command."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    started = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
    return seconds


def starting(folder: Path) -> dict[str, Callable[[], float]]:
    """Return the whole commands, each of one training step, whose scripts are put there."""
    (folder / "hand.py").write_text(HAND_WRITTEN)
    (folder / "ours.py").write_text(WITH_TRAINER)
    commands = {
        "torchrun, by hand": in_processes("hand.py"),
        f"torchrun, {OURS}": in_processes("ours.py"),
        f"`Trainer(devices={PROCESSES})` alone": [sys.executable, "ours.py"],
    }
    return {way: partial(run, command, folder) for way, command in commands.items()}


def starts(quick: bool) -> Comparison:
    """Measure whole commands."""
    with tempfile.TemporaryDirectory() as folder:
        runs = starting(Path(folder))
        taken = paired(runs, STARTS_IF_QUICK if quick else STARTS)
    ways = {
        way: (Spread(*(1e3 * value for value in times)), ratio)
        for way, (times, ratio) in taken.items()
    }
    return Comparison("start, one step, end", "ms", ways)


def measure(
    quick: bool, tell: Callable[[Comparison], None]
) -> tuple[list[Comparison], Comparison]:
    """Measure steps, then starts; tell of each as it is found."""
    found = steps_of_processes(quick)
    for comparison in found:
        tell(comparison)
    started = starts(quick)
    tell(started)
    return found, started


def main() -> None:
    """Measure and print; as one of the processes, write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    quick = options.quick
    if options.output is None:
        measure(quick, show)
        return
    found = work(quick)
    if os.environ["RANK"] == "0":
        options.output.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
