"""Starting several processes, and their end when one of them fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import program

pytestmark = pytest.mark.slow

MODULE = """
import torch
import lightgen_runtime as L
from torch.utils.data import DataLoader, TensorDataset

class Line(L.LightningModule):
    def __init__(self, lr: float = 0.01):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        loss = (self.layer(batch[0]) - 1).pow(2).mean()
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("number", batch[0].mean())

    def predict_step(self, batch, batch_idx):
        return batch[0].squeeze(1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)

class Numbers(L.LightningDataModule):
    def loader(self):
        numbers = torch.arange(7.0).unsqueeze(1)
        return DataLoader(TensorDataset(numbers), 2)

    train_dataloader = val_dataloader = predict_dataloader = loader
"""

TRAIN = """
import json, os, sys
from pathlib import Path
import lightgen_runtime as L
from project.module import Line, Numbers

BEFORE
trainer = L.Trainer(accelerator="cpu", max_epochs=1, devices=DEVICES)
trainer.fit(Line(), datamodule=Numbers())
alone = L.Trainer(accelerator="cpu", devices=1, logger=False)
[values] = alone.validate(trainer.lightning_module, datamodule=Numbers(), verbose=False)
if trainer.is_global_zero:
    print("batches", trainer.num_training_batches)
found = {
    "rank": trainer.global_rank, "argv": sys.argv[1:],
    "world": trainer.world_size, "log_dir": trainer.log_dir,
    "alone": [alone.world_size, alone.global_rank, *values.values()],
}
Path(f"rank_{trainer.global_rank}.json").write_text(json.dumps(found))
"""

# A program that is elsewhere, and has evaluated alone, by the time it starts the others.
BEFORE = """
os.chdir("../elsewhere")
alone = L.Trainer(accelerator="cpu", devices=1, logger=False)
alone.validate(Line(), datamodule=Numbers(), verbose=False)
"""

COMMAND_LINE = """
from lightgen_runtime.cli import ProjectCLI
from project.module import Line, Numbers

ProjectCLI(Line, Numbers)
"""

FAILS = """
import os, sys, time
from project.module import Line, Numbers
import lightgen_runtime as L
class Failing(Line):
    def training_step(self, batch, batch_idx):
        if batch_idx == 1 and self.global_rank == int(sys.argv[1]):
            raise ValueError("this one is broken")
        if batch_idx == 1:
            time.sleep(600)  # where no other process's end can reach it
        return super().training_step(batch, batch_idx)

if __name__ == "__main__":
    trainer = L.Trainer(accelerator="cpu", devices=2, max_epochs=1, logger=False)
    with open(f"{trainer.global_rank}.pid", "w") as file:
        file.write(str(os.getpid()))
    trainer.fit(Failing(), datamodule=Numbers())
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    package = tmp_path / "src" / "project"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "module.py").write_text(MODULE)
    (package / "__main__.py").write_text(COMMAND_LINE)
    (tmp_path / "elsewhere").mkdir()
    own = TRAIN.replace("DEVICES", "2").replace("BEFORE", BEFORE)
    joined = TRAIN.replace("DEVICES", '"auto"').replace("BEFORE", "")
    (package / "train.py").write_text(own)
    (tmp_path / "joined.py").write_text(joined)
    (tmp_path / "fails.py").write_text(FAILS)
    return tmp_path


def with_path(project: Path) -> dict[str, str]:
    path = os.pathsep.join([str(project / "src"), os.environ.get("PYTHONPATH", "")])
    return {"PYTHONPATH": path}


def check_trained(project: Path, done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr
    folder = project / "lightning_logs" / "version_0"
    for rank in range(2):
        found = json.loads((project / f"rank_{rank}.json").read_text())
        assert found == {
            "rank": rank,
            "argv": ["--flag", "a value"],
            "world": 2,
            "log_dir": str(folder),  # both name the one folder
            # Behind that, each process does for itself what is asked of one device.
            "alone": [1, 0, 3.0],
        }
    # Rank 0 alone reports.
    assert done.stdout.count("batches 2") == 1
    assert done.stderr.count("`Trainer.fit` stopped") == 1
    assert [path.name for path in folder.parent.iterdir()] == ["version_0"]
    assert (folder / "metrics.csv").is_file()
    assert len(list((folder / "checkpoints").glob("*.ckpt"))) == 1


def test_program_starts_the_others_by_running_itself_again(project: Path) -> None:
    arguments = ("-m", "project.train", "--flag", "a value")
    done = program(*arguments, cwd=project / "src")
    check_trained(project / "elsewhere", done)


def test_processes_of_torchrun_are_joined(project: Path) -> None:
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = program(
        *(*torchrun, "joined.py", "--flag", "a value"),
        cwd=project,
        **with_path(project),
    )
    check_trained(project, done)


def test_command_line_of_a_project(project: Path) -> None:
    devices = ("--trainer.accelerator", "cpu", "--trainer.devices", "2")
    fit = program(
        *("-m", "project", "fit", "--trainer.max_epochs", "2", "--json", *devices),
        cwd=project,
        **with_path(project),
    )
    assert fit.returncode == 0, fit.stderr
    assert [path.name for path in (project / "runs").iterdir()] == ["1"]
    files = {path.name for path in (project / "runs" / "1").iterdir()}
    assert files >= {"metrics.csv", "checkpoints", "summary.json", "config.yaml"}
    assert fit.stdout.count("best checkpoint") == 1
    result = json.loads(fit.stdout.splitlines()[-1])
    assert result["metrics"]["number"] == 3.0  # of 0 to 6, wherever they were read
    assert fit.stderr.count("run 1:") == 1

    predict = program(
        *("-m", "project", "predict", *devices), cwd=project, **with_path(project)
    )
    assert predict.returncode == 0, predict.stderr
    table = (project / "runs" / "1" / "predictions.csv").read_text().split()
    assert table == ["prediction", *map(str, range(7))]


@pytest.mark.parametrize("rank", [0, 1])
def test_all_end_soon_after_one_fails(rank: int, project: Path) -> None:
    done = program("fails.py", str(rank), cwd=project, **with_path(project))
    assert done.returncode == 1
    assert "ValueError: this one is broken" in done.stderr
    if rank == 1:
        assert "Rank 1 (process" in done.stderr
        assert "ended with exit code 1" in done.stderr
    wait_until_gone(int((project / "1.pid").read_text()))


def test_others_end_when_the_first_is_killed(project: Path) -> None:
    running = subprocess.Popen(
        [sys.executable, "fails.py", "7"],
        cwd=project,
        env={**os.environ, **with_path(project)},
        stderr=subprocess.DEVNULL,
    )
    other = project / "1.pid"
    try:
        wait_for(lambda: other.is_file() and other.read_text() != "")
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait()
    wait_until_gone(int(other.read_text()))


def wait_until_gone(process: int) -> None:
    def is_gone() -> bool:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        return False

    wait_for(is_gone)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
