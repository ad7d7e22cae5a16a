"""`--resume`: which run goes on, from where, under which settings, and what is said."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from test_cli_project import CONFIG, Data, Model, exit_code, read, run

from lightgen_runtime.cli import ProjectCLI
from lightgen_runtime.cli.resume import hold, release
from lightgen_runtime.cli.runs import Run


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(CONFIG)
    return tmp_path


class Signalled(Model):
    """Gets a signal inside its fifth batch, the second of the second epoch."""

    number = signal.SIGTERM

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.trainer.fit_loop.total_batch_idx == 4:
            os.kill(os.getpid(), self.number)
        return super().training_step(batch, batch_idx)


def interrupted(*options: str, number: int = signal.SIGTERM) -> int:
    """Fit until the signal; return the exit code."""
    Signalled.number = number
    with pytest.raises(SystemExit) as stop:
        ProjectCLI(Signalled, Data, args=["fit", "--config=config.yaml", *options])
    assert isinstance(stop.value.code, int)
    return stop.value.code


KILLED = """\
import signal
from test_cli_resume import Data, ProjectCLI, Signalled
Signalled.number = signal.SIGKILL
ProjectCLI(Signalled, Data, args=["fit", "--config=config.yaml"])
"""


def killed() -> None:
    """Have SIGKILL end a fit, inside its fifth batch: the last checkpoint is of the third."""
    paths = [str(Path(__file__).parent), *sys.path]
    done = subprocess.run(
        [sys.executable, "-c", KILLED],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not Path("runs/1/summary.json").exists()


def weights(path: str) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


def runs() -> list[str]:
    return sorted(path.name for path in Path("runs").iterdir())


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 143),
        (signal.SIGUSR1, 128 + signal.SIGUSR1),
        (signal.SIGINT, 130),
    ],
)
def test_signal_leaves_a_checkpoint_and_says_how_to_go_on(
    number: int,
    code: int,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert interrupted(number=number) == code
    err = capsys.readouterr().err
    told = err + caplog.text
    assert told.count("runs/1/checkpoints/interrupted-step=5.ckpt") == 1
    assert err.count("Interrupted.") == 1
    assert "fit --config=config.yaml --resume auto" in err
    summary = read("runs/1/summary.json")
    assert (summary["status"], summary["steps"]) == ("interrupted", 5)
    assert summary["last_checkpoint"] == "runs/1/checkpoints/interrupted-step=5.ckpt"


def test_command_to_go_on_is_the_one_that_was_typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = "lightgen train --trainer.max_epochs 9 --ckpt last --resume=weights"
    monkeypatch.setenv("LIGHTGEN_COMMAND", typed)
    interrupted()
    said = "resume: lightgen train --trainer.max_epochs 9 --resume auto\n"
    assert said in capsys.readouterr().err


def test_auto_goes_on_in_the_same_folder_and_ends_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    interrupted()
    run("fit", "--resume=auto")
    assert runs() == ["1"]
    summary = read("runs/1/summary.json")
    assert (summary["status"], summary["steps"]) == ("completed", 6)
    assert not list(Path("runs/1/checkpoints").glob("interrupted*"))
    assert "going on with run 1 (interrupted) from runs/1/" in capsys.readouterr().err
    run("fit")
    ours, whole = (weights(f"runs/{n}/checkpoints/last.ckpt") for n in (1, 2))
    for name, tensor in whole.items():
        assert torch.equal(tensor, ours[name])
    with Path("runs/1/metrics.csv").open(newline="") as stream:
        steps = [row["step"] for row in csv.DictReader(stream) if row["train_loss"]]
    assert steps == ["0", "1", "2", "3", "4", "5"]


def test_auto_goes_on_after_a_kill(capsys: pytest.CaptureFixture[str]) -> None:
    killed()
    run("fit", "--resume=auto")
    summary = read("runs/1/summary.json")
    assert (summary["status"], summary["steps"]) == ("completed", 6)
    assert "going on with run 1 (killed)" in capsys.readouterr().err
    run("fit")
    ours, whole = (weights(f"runs/{n}/checkpoints/last.ckpt") for n in (1, 2))
    assert ours.keys() == whole.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, ours[name])


def test_auto_begins_anew_where_nothing_is_left_to_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run("fit", "--resume=auto")
    run("fit", "--resume=auto")
    assert runs() == ["1", "2"]
    assert (
        capsys.readouterr().err.count("nothing to go on with: this is a new run") == 2
    )


def test_auto_passes_over_a_newer_run_that_is_complete() -> None:
    interrupted()
    run("fit")
    run("fit", "--resume=auto")
    assert runs() == ["1", "2"]
    assert read("runs/1/summary.json")["status"] == "completed"


def test_auto_passes_over_a_damaged_file(capsys: pytest.CaptureFixture[str]) -> None:
    interrupted()
    newest = Path("runs/1/checkpoints/interrupted-step=5.ckpt")
    newest.write_bytes(newest.read_bytes()[:-100])
    run("fit", "--resume=auto")
    assert read("runs/1/summary.json")["steps"] == 6
    err = capsys.readouterr().err
    assert "passed over: " in err
    assert "from runs/1/checkpoints/last.ckpt" in err


def test_auto_sees_what_a_job_has_left_in_the_folder_of_its_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    interrupted()
    assert Path("runs/1/hpc_ckpt_7.ckpt").is_file()
    monkeypatch.delenv("SLURM_JOB_ID")
    run("fit", "--resume=auto")
    assert "from runs/1/hpc_ckpt_7.ckpt" in capsys.readouterr().err
    assert read("runs/1/summary.json")["steps"] == 6


def test_flipped_bit_is_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    interrupted()
    newest = Path("runs/1/checkpoints/interrupted-step=5.ckpt")
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    run("fit", "--resume=auto")
    err = capsys.readouterr().err
    assert "passed over: `runs/1/checkpoints/interrupted-step=5.ckpt`" in err
    assert "from runs/1/checkpoints/last.ckpt" in err


def test_run_in_use_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    interrupted()
    held = hold(Run(Path("runs/1")))
    try:
        assert exit_code("fit", "--resume=auto") == 3
        assert exit_code("fit", "--resume=1") == 3
        assert runs() == ["1"]
        said = "Run 1 is being trained by another process"
        assert capsys.readouterr().err.count(said) == 2
        interrupted()
        other = hold(Run(Path("runs/2")))
        assert exit_code("fit", "--resume=auto") == 3
        release(other)
        run("fit", "--resume=auto")
    finally:
        release(held)
    assert runs() == ["1", "2"]
    assert read("runs/2/summary.json")["status"] == "completed"


def test_number_goes_on_with_that_run_also_with_more_epochs() -> None:
    run("fit")
    run("fit")
    run("fit", "--resume=1", "--trainer.max_epochs=3")
    assert runs() == ["1", "2"]
    assert read("runs/1/summary.json")["epochs"] == 3


def test_time_is_that_of_all_parts(capsys: pytest.CaptureFixture[str]) -> None:
    interrupted()
    path = Path("runs/1/summary.json")
    path.write_text(json.dumps({**read(str(path)), "seconds": 100.0}))
    run("fit", "--resume=auto")
    assert read(str(path))["seconds"] > 100
    assert "from checkpoint" not in capsys.readouterr().out  # it is gone


def test_nothing_left_to_train_leaves_the_run_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run("fit")
    before = Path("runs/1/summary.json").read_bytes()
    run("fit", "--resume=1", "--model.lr=0.5")
    assert Path("runs/1/summary.json").read_bytes() == before
    assert "lr: 0.1" in Path("runs/1/config.yaml").read_text()
    said = "nothing left to train: raise --trainer.max_epochs"
    assert said in capsys.readouterr().err


def test_settings_that_differ_are_told_and_count(
    capsys: pytest.CaptureFixture[str],
) -> None:
    interrupted()
    text = CONFIG.replace("lr: 0.1", "lr: 0.02").replace("seed_everything: 3", "")
    Path("config.yaml").write_text(text + "seed_everything: 4\n")
    cli = run("fit", "--resume=auto")
    err = capsys.readouterr().err
    assert "  model.lr: 0.1 in the run so far, 0.02 now\n" in err
    assert "  seed_everything: 3 in the run so far, 4 now\n" in err
    assert cli.trainer.optimizers[0].param_groups[0]["lr"] == 0.02
    assert "lr: 0.02" in Path("runs/1/config.yaml").read_text()


def test_run_that_cannot_go_on_is_left_as_it_was() -> None:
    interrupted()
    before = {p: p.read_bytes() for p in Path("runs/1").glob("*.*") if p.is_file()}
    assert exit_code("fit", "--resume=auto", "--model.width=5") == 2
    for name in ("config.yaml", "summary.json"):
        assert Path("runs/1", name).read_bytes() == before[Path("runs/1", name)]


def test_weights_begin_a_new_run(capsys: pytest.CaptureFixture[str]) -> None:
    run("fit")
    best = read("runs/1/summary.json")["best_checkpoint"]
    cli = run("fit", "--resume=weights", "--trainer.max_epochs=0")
    assert runs() == ["1", "2"]
    assert cli.trainer.global_step == 0
    for name, tensor in weights(best).items():
        assert torch.equal(cli.model.state_dict()[name], tensor)
    assert f"fit with the weights of {best}" in capsys.readouterr().err


def test_weights_of_a_file_that_is_named() -> None:
    run("fit")
    shutil.copy("runs/1/checkpoints/last.ckpt", "some.ckpt")
    shutil.rmtree("runs")
    run("fit", "--resume=weights", "--ckpt_path=some.ckpt")
    summary = read("runs/1/summary.json")
    assert (summary["ckpt_path"], summary["epochs"]) == (None, 2)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--resume=always"], "Use auto (the newest run that is not over)"),
        (["--resume=auto", "--ckpt_path=last"], "both say where to go on from"),
        (["--resume=7"], "There is no run 7"),
        (["--resume=weights"], "no run yet"),
    ],
)
def test_bad_use_is_one_message(
    options: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("fit", *options) == 2
    assert part in capsys.readouterr().err
    assert not Path("runs").exists()


def test_job_that_is_started_again_goes_on_with_its_own_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scontrol = tmp_path / "bin/scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f"#!/bin/sh\necho $@ > {tmp_path}/calls\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}{os.pathsep}{os.environ['PATH']}")
    for job in ("7", "8"):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        interrupted(number=signal.SIGUSR1)
    assert Path("calls").read_text() == "requeue 8\n"
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    run("fit")
    assert runs() == ["1", "2"]
    states = [json.loads(Path(f"runs/{n}/summary.json").read_text()) for n in (1, 2)]
    assert [state["status"] for state in states] == ["completed", "interrupted"]
    assert not Path("runs/1/hpc_ckpt_7.ckpt").exists()


@pytest.mark.parametrize("option", ["--resume=auto", "--ckpt_path=last"])
def test_newest_is_of_the_last_step_not_the_file_written_last(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted()
    Path("runs/1/summary.json").unlink()
    folder = Path("runs/1/checkpoints")
    shutil.copy(folder / "last.ckpt", folder / "copy.ckpt")  # of step 3
    future = time.time() + 100
    os.utime(folder / "copy.ckpt", (future, future))
    run("fit", option)
    assert "from runs/1/checkpoints/interrupted-step=5.ckpt" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["fit", "test"])
@pytest.mark.parametrize("status", ["killed", "completed"])
def test_last_passes_over_a_damaged_file(
    command: str, status: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run("fit")
    newest = Path(read("runs/1/summary.json")["last_checkpoint"])
    newest.write_bytes(newest.read_bytes()[:-100])
    if status == "killed":
        Path("runs/1/summary.json").unlink()
    run(command, "--ckpt_path=last")
    err = capsys.readouterr().err
    assert f"passed over: `{newest}`" in err
    assert f"{command} from runs/1/checkpoints/epoch=" in err
