"""Programs under torchrun: started by `lightgen train`, killed, started again, failing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from processes import program

pytestmark = pytest.mark.slow

STATE = """{"schema": 1, "generator": "0.1.0", "package": "project", "template":
{"id": "vision", "version": "1", "digest": "", "source": "bundled"},
"answers": {}, "files": {}, "blocks": {}}"""

CONFIG = """\
seed_everything: 1
trainer:
  accelerator: cpu
  max_epochs: 3
  log_every_n_steps: 1
  enable_model_summary: false
"""

# What a careless restart would lose: dropout, momentum, shuffling, a schedule.
MODULE = """
import os, signal, time
import torch
import lightgen_runtime as L
from torch.utils.data import DataLoader, TensorDataset

first_start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"

class Net(L.LightningModule):
    def __init__(self, kill: int = -1, wait: float = 0.0):
        super().__init__()
        self.save_hyperparameters()
        parts = torch.nn.Linear(4, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1)
        self.net = torch.nn.Sequential(*parts)

    def training_step(self, batch, batch_idx):
        at = self.trainer.fit_loop.total_batch_idx
        if self.global_rank == 1 and first_start and at == self.hparams.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.hparams.wait)
        loss = self.net(batch[0]).pow(2).mean()
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.net(batch[0]).pow(2).mean())

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)]

class Numbers(L.LightningDataModule):
    def __init__(self):
        super().__init__()
        numbers = torch.randn(32, 4, generator=torch.Generator().manual_seed(1))
        self.rows = TensorDataset(numbers)

    def train_dataloader(self):
        return DataLoader(self.rows, 4, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.rows, 5)
"""

COMMAND_LINE = """
from lightgen_runtime.cli import ProjectCLI
from project.module import Net, Numbers

ProjectCLI(Net, Numbers)
"""

# Two fits: the second one is killed, and the first one must not take its state.
SCRIPT = """
import json
from pathlib import Path
import torch
import lightgen_runtime as L
from lightgen_runtime.callbacks import ModelCheckpoint
from project.module import Net, Numbers, first_start

def fit(kill=-1):
    L.seed_everything(1, workers=True, verbose=False)
    trainer = L.Trainer(
        accelerator="cpu", devices=2, max_epochs=3, log_every_n_steps=1,
        enable_model_summary=False, enable_progress_bar=False,
        callbacks=ModelCheckpoint(every_n_train_steps=3, save_top_k=-1),
    )
    trainer.fit(Net(kill), datamodule=Numbers())
    return trainer

L.seed_everything(1, workers=True, verbose=False)
fit()
whole, again = fit(), fit(kill=7)
if again.is_global_zero:
    pairs = zip(whole.model.parameters(), again.model.parameters(), strict=True)
    found = {
        "equal": all(torch.equal(one, other) for one, other in pairs),
        "whole": str(whole.ckpt_path), "again": str(again.ckpt_path),
    }
    Path("found.json").write_text(json.dumps(found))
"""

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("restarts")
    package = root / "src" / "project"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "module.py").write_text(MODULE)
    (package / "__main__.py").write_text(COMMAND_LINE)
    (root / "config.yaml").write_text(CONFIG)
    (root / ".lightgen").mkdir()
    (root / ".lightgen" / "state.json").write_text(STATE)
    (root / "script.py").write_text(SCRIPT)
    return root


def train(project: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return program("-m", "lightgen", "train", "--devices", "2", *options, cwd=project)


def weights(run: Path) -> dict[str, torch.Tensor]:
    path = run / "checkpoints/epoch=2-step=12.ckpt"
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


def test_killed_run_goes_on_in_its_folder_and_ends_with_the_same_bits(
    project: Path,
) -> None:
    whole = train(project, "--json")
    assert whole.returncode == 0, whole.stderr
    assert json.loads(whole.stdout.splitlines()[-1])["status"] == "completed"
    assert "OMP_NUM_THREADS environment" not in whole.stderr  # torchrun's warning
    assert whole.stderr.count("run 1: runs/1") == 1

    killed = train(project, "--restarts", "1", "--model.kill", "6")
    assert killed.returncode == 0, killed.stderr
    assert "going on with run 2" in killed.stderr
    assert "from runs/2/checkpoints/epoch=0-step=4.ckpt" in killed.stderr
    runs = project / "runs"
    assert sorted(path.name for path in runs.iterdir()) == ["1", "2"]
    rows, again = ((runs / n / "metrics.csv").read_text() for n in "12")
    assert rows == again
    one, other = weights(runs / "1"), weights(runs / "2")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert json.loads((runs / "2/summary.json").read_text())["status"] == "completed"


def test_script_is_gone_on_with_fit_by_fit(project: Path) -> None:
    path = os.pathsep.join([str(project / "src"), os.environ.get("PYTHONPATH", "")])
    done = program(
        *(*TORCHRUN, "--max-restarts", "1", "script.py"),
        cwd=project,
        PYTHONPATH=path,
        OMP_NUM_THREADS="1",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((project / "found.json").read_text())
    assert found["equal"]
    logs = project / "lightning_logs"
    assert found["whole"] == str(logs / "version_1/checkpoints/epoch=2-step=12.ckpt")
    assert found["again"] == str(logs / "version_2/checkpoints/epoch=1-step=6.ckpt")
    assert len(list(logs.iterdir())) == 3
    rows, again = ((logs / f"version_{n}/metrics.csv").read_text() for n in (1, 2))
    assert rows == again


@pytest.mark.skipif("LIGHTGEN_SOAK" not in os.environ, reason="part of `make soak`")
def test_two_machines_go_on_together(project: Path) -> None:
    """Their launchers count restarts differently: one sees a failure, one a newcomer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    meeting = ["--nodes", "2", "--rendezvous", endpoint, "--restarts", "2"]
    command = ["train", "--devices", "1", *meeting, "--model.kill", "6"]
    machines = [
        subprocess.Popen(
            [sys.executable, "-m", "lightgen", *command],
            cwd=project,
            env={**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [machine.communicate(timeout=240)[1] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], said
    assert sum("going on with run" in text for text in said) == 1
    newest = max(project.glob("runs/*"), key=lambda run: int(run.name))
    again, whole = train(project), newest.parent / str(int(newest.name) + 1)
    assert again.returncode == 0, again.stderr
    rows, others = ((run / "metrics.csv").read_text() for run in (newest, whole))
    assert rows == others


def test_last_lines_name_what_has_failed(project: Path) -> None:
    """An error in a step is tried in `test_faults.py`."""
    done = train(project, "--trainer.max_epoch", "1")
    assert done.returncode == 1  # torchrun's, whatever the program's own was
    report = done.stderr.rpartition("Root Cause")[2]
    error = (
        "error: unknown option `--trainer.max_epoch`; did you mean "
        "`--trainer.max_epochs`?"
    )
    assert f"traceback : {error}\n" in report
    # The first process says so by itself too, unless torchrun has ended it before that.
    assert done.stderr.partition("FAILED")[0].splitlines().count(error) <= 1


def test_ctrl_c_saves_once(project: Path) -> None:
    runs = project / "runs"
    before = set(runs.iterdir()) if runs.exists() else set()
    command = ["train", "--devices", "2", "--model.wait", "0.1"]
    running = subprocess.Popen(
        [sys.executable, "-m", "lightgen", *command, "--trainer.max_epochs", "500"],
        cwd=project,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 120
    while not any(list(run.glob("checkpoints/*")) for run in _new(runs, before)):
        assert time.monotonic() < end
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    said = running.communicate(timeout=120)[1]
    assert running.returncode == 1
    (run,) = _new(runs, before)
    assert len(list(run.glob("checkpoints/interrupted-*.ckpt"))) == 1, said
    assert json.loads((run / "summary.json").read_text())["status"] == "interrupted"
    assert "resume: lightgen train --devices 2" in said
    assert "Ctrl-C again" not in said  # torchrun would wait longer, and end nothing


def _new(runs: Path, before: set[Path]) -> list[Path]:
    return [run for run in runs.iterdir() if run not in before] if runs.exists() else []
