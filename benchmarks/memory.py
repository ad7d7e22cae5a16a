"""Memory of the process over 20,000 steps with everything on that a run has by default.

    python benchmarks/memory.py [--quick]

Ten metrics are logged in each step, with their means over the epoch; a CSV file, a
progress bar and checkpoints belong to the run.
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any, NamedTuple

import numpy
import psutil

import lightgen_runtime as L
from contenders.trainers import classifier, quiet
from contenders.workloads import TINY, Batches, Variant
from paired import one_thread

STEPS_AN_EPOCH = 1000


class Memory(NamedTuple):
    """What a run held.

    Attributes:
        steps: Length of the run.
        resident: MiB after each epoch of 1,000 steps.
    """

    steps: int
    resident: list[float]

    def slope(self) -> float:
        """Return KiB more a thousand steps, over the second half of the run."""
        half = self.resident[len(self.resident) // 2 :]
        return 1024 * float(numpy.polyfit(range(len(half)), half, 1)[0])


class Watch(L.Callback):
    """Reads the process's memory at each epoch's end."""

    def __init__(self) -> None:
        self.resident: list[float] = []

    def on_train_epoch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule
    ) -> None:
        self.resident.append(psutil.Process().memory_info().rss / 2**20)


def measure(epochs: int) -> Memory:
    """Train for so many thousand steps."""
    one_thread()
    watch = Watch()
    variant = Variant("everything", logged=10, callbacks=True)
    module: Any = classifier(L, TINY, variant)
    with tempfile.TemporaryDirectory() as folder, quiet():
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            default_root_dir=folder,
            callbacks=[watch],
        )
        trainer.fit(module, Batches(TINY.batch, STEPS_AN_EPOCH))
    return Memory(trainer.global_step, watch.resident)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="6,000 steps")
    memory = measure(6 if parser.parse_args().quick else 20)
    for number, mebibytes in enumerate(memory.resident, 1):
        print(f"after {number * STEPS_AN_EPOCH:6,} steps {mebibytes:8.1f} MiB")
    print(f"second half: {memory.slope():+.1f} KiB a thousand steps")


if __name__ == "__main__":
    main()
