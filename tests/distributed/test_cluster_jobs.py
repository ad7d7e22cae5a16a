"""The generated job files, run: two machines that are this one, and a small SLURM."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from test_launch import COMMAND_LINE, MODULE, wait_for

from lightgen.cluster.slurm import SlurmJob
from lightgen.cluster.torchrun import TorchrunJob

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# Its module, with something that happens before a batch of the second epoch.
TROUBLE = """
import os
import time
from pathlib import Path

from project import plain

class Line(plain.Line):
    def on_train_batch_start(self, batch, batch_idx):
        if self.current_epoch == 1:
            self.meet_trouble()

    def meet_trouble(self):
"""
# The first start of one process ends in the second epoch.
CRASHES = """
        if self.global_rank == 1 and not Path("crashed").exists():
            Path("crashed").touch()
            os._exit(1)
"""
# Every process of the first start is in a batch when SLURM warns.
WAITS = """
        if "SLURM_RESTART_COUNT" not in os.environ:
            Path(f"ready-{self.global_rank}").touch()
            while not Path("warned").exists():
                time.sleep(0.05)
"""
CONFIG = """
trainer:
  accelerator: cpu
  max_epochs: 3
"""
# Starts the tasks that its environment asks for, and ends as they do.
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
for ((rank = 0; rank < SLURM_NTASKS; rank++)); do
  SLURM_PROCID=$rank SLURM_LOCALID=$((rank % SLURM_NTASKS_PER_NODE)) \\
    SLURM_NODEID=$((rank / SLURM_NTASKS_PER_NODE)) "$@" &
  echo $! >> tasks
done
code=0
for task in $(jobs -p); do wait "$task" || code=$?; done
exit $code
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then printf '127.0.0.1\\nunreachable\\n'; else echo "$@" >> calls; fi
"""


def make_project(folder: Path, trouble: str) -> Path:
    package = folder / "src/project"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "plain.py").write_text(MODULE)
    (package / "module.py").write_text(TROUBLE + trouble)
    (package / "__main__.py").write_text(
        COMMAND_LINE.replace("import Line, Numbers", "import Line, plain").replace(
            "Line, Numbers)", "Line, plain.Numbers)"
        )
    )
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "cluster").mkdir()
    (folder / "bin").mkdir()
    put_program(folder, "python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    return folder


def put_program(project: Path, name: str, text: str) -> None:
    (project / "bin" / name).write_text(text)
    (project / "bin" / name).chmod(0o755)


def environment(project: Path, **more: str) -> dict[str, str]:
    """What a login shell has, nothing of a launcher's."""
    clean = {n: v for n, v in os.environ.items() if n not in ("RANK", "WORLD_SIZE")}
    path = os.pathsep.join([str(project / "bin"), os.environ["PATH"]])
    imported = os.pathsep.join([str(ROOT), str(ROOT / "runtime")])
    own = {"PATH": path, "PYTHONPATH": imported, "PYTHONWARNINGS": "ignore"}
    return {**clean, "OMP_NUM_THREADS": "1", **own, **more}


def free_port(first: int = 15_000) -> int:
    for port in range(first + os.getpid() % 5000, 30_000):
        with socket.socket() as here:
            if here.connect_ex(("127.0.0.1", port)):
                return port
    pytest.fail("no port is free")


def check_went_on(project: Path, said: str) -> None:
    """One run, in one folder, to its end, with all batches of all processes."""
    assert [path.name for path in (project / "runs").iterdir()] == ["1"], said
    summary = json.loads((project / "runs/1/summary.json").read_text())
    assert summary["status"] == "completed", said
    assert summary["epochs"] == 3, said


def test_machines_meet_by_torchrun_and_start_again_after_a_crash(
    tmp_path: Path,
) -> None:
    project = make_project(tmp_path, CRASHES)
    job = TorchrunJob(nodes=2, rendezvous=f"127.0.0.1:{free_port()}", restarts=1)
    (project / job.file).write_text(job.text("project"))
    nodes = [
        subprocess.Popen(
            ["bash", job.file, str(node), "--model.lr", "0.02"],
            cwd=project,
            env=environment(project),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for node in (1, 0)  # the others may come first
    ]
    try:
        said = "\n".join(node.communicate(timeout=240)[0] for node in nodes)
    finally:
        for node in nodes:
            node.kill()
    assert [node.returncode for node in nodes] == [0, 0], said
    assert (project / "crashed").exists()
    check_went_on(project, said)
    assert "lr: 0.02" in (project / "runs/1/config.yaml").read_text()


def test_job_of_slurm_saves_before_its_limit_and_goes_on(tmp_path: Path) -> None:
    project = make_project(tmp_path, WAITS)
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        put_program(project, name, text)
    job = SlurmJob(nodes=2, time="24:00:00", setup=("export MARK=set",))
    script = job.text("project")
    (project / job.file).write_text(script)
    settings = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", script, re.MULTILINE))
    nodes, tasks = int(settings["nodes"]), int(settings["ntasks-per-node"])
    port = free_port()
    slurm = {
        "SLURM_JOB_ID": str(port - 15_000),
        "SLURM_JOB_NAME": settings["job-name"],
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_NNODES": str(nodes),
        "SLURM_NTASKS": str(nodes * tasks),
        "SLURM_NTASKS_PER_NODE": str(tasks),
    }

    def start(**more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", job.file],
            cwd=project,
            env=environment(project, **slurm, **more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    first = start()
    try:
        wait_for(
            lambda: len(list(project.glob("ready-*"))) == nodes * tasks
            or first.poll() is not None
        )
        number = getattr(signal, f"SIG{settings['signal'].partition('@')[0]}")
        for task in (project / "tasks").read_text().split():
            os.kill(int(task), number)
        (project / "warned").touch()
        said = first.communicate(timeout=240)[0]
    finally:
        first.kill()
    assert first.returncode == 128 + number, said
    assert (project / "calls").read_text() == f"requeue {slurm['SLURM_JOB_ID']}\n"
    second = start(SLURM_RESTART_COUNT="1")
    try:
        said += second.communicate(timeout=240)[0]
    finally:
        second.kill()
    assert second.returncode == 0, said
    check_went_on(project, said)
    assert f"hpc_ckpt_{slurm['SLURM_JOB_ID']}.ckpt" in said
