"""What is left of torch's threads when a program ends: they can abort it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import atexit
import sys
from pathlib import Path


def threads():
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    return sum("runloop" in name for name in names)


atexit.register(lambda: print("at the end:", threads()))  # runs last
from lightgen_runtime import Trainer
from lightgen_runtime.demos import BoringModel

trainer = Trainer(
    accelerator="cpu",
    devices=1,
    strategy=sys.argv[1],
    max_steps=1,
    limit_val_batches=0,
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(BoringModel())
print("behind the fit:", threads())
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
@pytest.mark.parametrize("strategy", ["ddp"])
def test_no_thread_of_the_group_outlives_the_program(
    strategy: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", PROGRAM, strategy]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    behind, at_the_end = done.stdout.splitlines()[-2:]
    assert behind != "behind the fit: 0"
    assert at_the_end == "at the end: 0"
