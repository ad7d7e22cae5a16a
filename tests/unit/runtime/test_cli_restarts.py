"""A job that is started again and had no time to save: its run goes on in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_cli_project import CONFIG, Data, Model, read, run

from lightgen_runtime.cli import ProjectCLI
from lightgen_runtime.trainer import interruption


class Killed(BaseException):
    """Stands for a kill: nothing is saved."""


class Fragile(Model):
    """Ends as if killed in a batch: of three in an epoch."""

    at = -1

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.trainer.fit_loop.total_batch_idx == self.at:
            raise Killed
        return super().training_step(batch, batch_idx)


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(CONFIG)
    return tmp_path


def start(job: str, monkeypatch: pytest.MonkeyPatch, restarts: int = 0) -> None:
    """Be a new process of a SLURM job."""
    monkeypatch.setenv("SLURM_JOB_ID", job)
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
    interruption._fits.clear()


def kill(at: int, *options: str) -> None:
    Fragile.at = at
    with pytest.raises(Killed):
        ProjectCLI(Fragile, Data, args=["fit", "--config=config.yaml", *options])


def rows(run: int) -> str:
    return Path(f"runs/{run}/metrics.csv").read_text()


def runs() -> list[str]:
    return sorted(path.name for path in Path("runs").iterdir())


@pytest.fixture
def whole() -> str:
    run("fit")
    return rows(1)


@pytest.mark.parametrize(
    ("at", "says"),
    [
        (4, "going on with run 2 (failed) from runs/2/checkpoints/"),
        (1, "beginning run 2 anew: it had no checkpoint yet"),
    ],
)
def test_own_run_goes_on_in_its_folder(
    at: int,
    says: str,
    whole: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start("7", monkeypatch)
    kill(at, "--trainer.log_every_n_steps=1")
    start("8", monkeypatch)
    run("fit")  # another job's, complete and newer
    start("7", monkeypatch, restarts=1)
    run("fit")
    assert says in capsys.readouterr().err
    assert runs() == ["1", "2", "3"]
    assert rows(2) == whole
    assert read("runs/2/summary.json")["status"] == "completed"


def test_options_say_where_the_run_begins_not_where_it_goes_on(
    whole: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("fit", "--model.width=5")
    begin = ["--ckpt_path=2", "--trainer.max_epochs=4"]
    start("7", monkeypatch)
    kill(10, *begin)
    capsys.readouterr()
    start("7", monkeypatch, restarts=1)
    run("fit", *begin)
    assert "going on with run 3" in capsys.readouterr().err
    assert runs() == ["1", "2", "3"]
    assert read("runs/3/summary.json")["steps"] == 12


@pytest.mark.parametrize("begin", ["--resume=weights", "--resume=auto"])
def test_resumed_run_is_the_jobs_own(
    begin: str,
    whole: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start("7", monkeypatch)
    kill(4, begin)
    start("7", monkeypatch, restarts=1)
    run("fit", begin)
    assert "going on with run 2" in capsys.readouterr().err
    assert runs() == ["1", "2"]


def test_job_that_was_not_started_before_begins_a_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start("7", monkeypatch)
    kill(4)
    run("fit")
    assert runs() == ["1", "2"]
