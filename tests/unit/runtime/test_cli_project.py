"""The command line of a project: run folders, results, errors and exit codes."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import lightgen_runtime
from lightgen_runtime.callbacks.early_stopping import EarlyStopping
from lightgen_runtime.cli import ProjectCLI
from lightgen_runtime.core.datamodule import LightningDataModule
from lightgen_runtime.core.module import LightningModule
from lightgen_runtime.utilities.exceptions import MisconfigurationException

CONFIG = """\
seed_everything: 3
trainer:
  accelerator: cpu
  max_epochs: 2
  log_every_n_steps: 1
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
  - class_path: lightgen_runtime.callbacks.ModelCheckpoint
    init_args: {monitor: val_loss, save_last: true}
  - class_path: lightgen_runtime.callbacks.FiniteLoss
model:
  lr: 0.1
"""


class Rows(Dataset[Tensor]):
    def __init__(self, length: int) -> None:
        self.rows = torch.arange(float(length)).reshape(-1, 1) / 10

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        return self.rows[index]


class Data(LightningDataModule):
    def __init__(self, length: int = 6) -> None:
        super().__init__()
        if length < 0:
            raise MisconfigurationException(f"`length` is {length}; at least 0")
        self.length = length

    def train_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(Rows(self.length), batch_size=2)

    def val_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(Rows(4), batch_size=2)

    test_dataloader = val_dataloader
    predict_dataloader = val_dataloader


class Model(LightningModule):
    def __init__(self, lr: float = 0.01, width: int = 2, fail: str = "") -> None:
        super().__init__()
        self.save_hyperparameters("lr", "width")
        self.lr = lr
        self.fail = fail
        self.net = nn.Sequential(nn.Linear(1, width), nn.Linear(width, 1))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        # By now the first epoch has left a checkpoint.
        if self.current_epoch == 1:
            if self.fail == "ours":
                return torch.full((), float("nan"), requires_grad=True)
            if self.fail == "user":
                raise ZeroDivisionError("the project's own mistake")
            if self.fail == "interrupt":
                raise KeyboardInterrupt
        loss: Tensor = (self.net(batch) - 1).pow(2).mean()
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val_loss", (self.net(batch) - 1).pow(2).mean())

    def test_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("test_loss", (self.net(batch) - 1).pow(2).mean())

    def predict_step(self, batch: Tensor, batch_idx: int) -> dict[str, Tensor]:
        value = self.net(batch).squeeze(1)
        return {"value": value, "above": value > 0}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(CONFIG)
    return tmp_path


def run(*args: str) -> ProjectCLI:
    command, *options = args
    return ProjectCLI(Model, Data, args=[command, "--config=config.yaml", *options])


def exit_code(*args: str) -> int:
    with pytest.raises(SystemExit) as exit_info:
        run(*args)
    assert isinstance(exit_info.value.code, int)
    return exit_info.value.code


def read(path: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(path).read_text())
    return content


def files() -> set[str]:
    return {p.as_posix() for p in Path().rglob("*") if p.is_file()}


def test_fit_fills_one_run_folder() -> None:
    run("fit", "--model.width=3")
    made = files() - {"config.yaml"}
    assert {name for name in made if "/checkpoints/" not in name} == {
        "runs/1/config.yaml",
        "runs/1/hparams.yaml",
        "runs/1/metrics.csv",
        "runs/1/summary.json",
    }
    with Path("runs/1/metrics.csv").open(newline="") as stream:
        assert "val_loss" in next(csv.reader(stream))


def test_summary_names_files_that_exist_and_last_metrics() -> None:
    cli = run("fit")
    summary = read("runs/1/summary.json")
    assert summary["command"] == "fit"
    assert summary["run"] == "runs/1"
    assert summary["status"] == "completed"
    assert (summary["epochs"], summary["steps"]) == (2, 6)
    assert summary["metrics"]["val_loss"] == pytest.approx(
        float(cli.trainer.callback_metrics["val_loss"])
    )
    assert Path(summary["best_checkpoint"]).is_file()
    assert summary["last_checkpoint"] == "runs/1/checkpoints/last.ckpt"
    assert Path(summary["last_checkpoint"]).is_file()


def test_saved_config_repeats_the_run() -> None:
    run("fit", "--model.lr=0.05", "--json")
    saved = yaml.safe_load(Path("runs/1/config.yaml").read_text())
    assert saved["model"]["lr"] == 0.05
    assert not {"json", "ckpt_path", "config"} & set(saved)
    ProjectCLI(Model, Data, args=["fit", "--config=runs/1/config.yaml"])
    first, second = read("runs/1/summary.json"), read("runs/2/summary.json")
    assert first["metrics"] == second["metrics"]


def test_print_config_starts_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    before = files()
    assert exit_code("fit", "--print_config") == 0
    assert yaml.safe_load(capsys.readouterr().out)["model"]["lr"] == 0.1
    assert files() == before


def test_fast_dev_run_leaves_the_disk_as_it_was() -> None:
    before = files()
    run("fit", "--trainer.fast_dev_run=true")
    run("test", "--trainer.fast_dev_run=true")
    assert files() == before


def test_results_are_printed_for_people_and_json_comes_last(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run("fit", "--json")
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert json.loads(lines[-1]) == read("runs/1/summary.json")
    value = read("runs/1/summary.json")["metrics"]["val_loss"]
    assert any(line.split() == ["val_loss", f"{value:.4f}"] for line in lines)
    assert any(line.split() == ["run", "runs/1"] for line in lines)
    assert any(line.startswith("best checkpoint  runs/1/check") for line in lines)
    assert "runs/1" in err


@pytest.mark.parametrize(
    ("command", "metric"), [("validate", "val_loss"), ("test", "test_loss")]
)
def test_evaluation_uses_the_best_checkpoint_and_its_run(
    command: str, metric: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run("fit")
    before = files()
    capsys.readouterr()
    run(command, "--json")
    assert files() - before == {f"runs/1/{command}.json"}
    result = read(f"runs/1/{command}.json")
    assert list(result["metrics"]) == [metric]
    assert result["run"] == "runs/1"
    assert result["ckpt_path"] == read("runs/1/summary.json")["best_checkpoint"]
    out = capsys.readouterr().out
    assert json.loads(out.splitlines()[-1]) == result


def test_evaluation_of_last_and_of_an_older_run_by_number() -> None:
    run("fit")
    run("fit")
    run("test", "--ckpt_path=last")
    assert read("runs/2/test.json")["ckpt_path"] == "runs/2/checkpoints/last.ckpt"
    run("test", "--ckpt_path=1")
    assert read("runs/1/test.json")["run"] == "runs/1"


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_evaluation_of_a_checkpoint_elsewhere_gets_a_run_folder(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run("fit")
    Path("kept").mkdir()
    Path("runs/1/checkpoints/last.ckpt").rename("kept/mine.ckpt")
    for name in (f"{command}.json", "predictions.csv"):
        Path("kept", name).write_text("mine")
    before = files()
    run(command, "--ckpt_path=kept/mine.ckpt")
    made = {"config.yaml", "summary.json", f"{command}.json"}
    made |= {"predictions.csv"} if command == "predict" else set()
    assert files() - before == {f"runs/2/{name}" for name in made}
    assert {p.read_text() for p in Path("kept").iterdir() if p.suffix != ".ckpt"} == {
        "mine"
    }
    assert read("runs/2/summary.json") == read(f"runs/2/{command}.json")
    assert read("runs/2/summary.json")["run"] == "runs/2"
    assert "run 2: runs/2" in capsys.readouterr().err
    # The folder has no checkpoint, so the one to use next is still that of the fit.
    run("test")
    assert read("runs/1/test.json")["command"] == "test"


def test_failed_evaluation_of_a_checkpoint_elsewhere_leaves_no_folder() -> None:
    run("fit")
    Path("runs/1/checkpoints/last.ckpt").rename("mine.ckpt")
    before = files()
    assert exit_code("test", "--ckpt_path=mine.ckpt", "--model.width=7") == 2
    assert files() == before
    assert not Path("runs/2").exists()


def test_evaluation_builds_the_model_that_was_trained(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run("fit", "--model.width=5")
    cli = run("test")
    assert cli.config.test.model.width == 5
    assert "model.width: 5 from the checkpoint, not 2" in capsys.readouterr().err


def test_option_beats_the_hyperparameters_in_the_checkpoint() -> None:
    run("fit", "--model.lr=0.05")
    assert run("test", "--model.lr=0.2").config.test.model.lr == 0.2


def test_predict_writes_one_row_a_sample() -> None:
    run("fit")
    run("predict")
    with Path("runs/1/predictions.csv").open(newline="") as stream:
        header, *rows = csv.reader(stream)
    assert header == ["value", "above"]
    assert len(rows) == 4
    assert read("runs/1/predict.json")["predictions"] == "runs/1/predictions.csv"


def test_resumed_fit_goes_on_in_a_run_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run("fit")
    run("fit", "--ckpt_path=last", "--trainer.max_epochs=3")
    assert read("runs/1/summary.json")["epochs"] == 2
    resumed = read("runs/2/summary.json")
    assert (resumed["epochs"], resumed["steps"]) == (3, 9)
    assert resumed["ckpt_path"] == "runs/1/checkpoints/last.ckpt"
    err = capsys.readouterr().err
    assert "fit from runs/1/checkpoints/last.ckpt" in err


def test_resumed_fit_that_wrote_nothing_names_what_it_went_on_from() -> None:
    run("fit", "--model.lr=0.05")
    run("fit")
    run("fit", "--ckpt_path=runs/1/checkpoints/last.ckpt")  # has all its epochs
    first, third = read("runs/1/summary.json"), read("runs/3/summary.json")
    assert third["best_checkpoint"] == first["best_checkpoint"]
    assert third["last_checkpoint"] == "runs/1/checkpoints/last.ckpt"


def test_best_checkpoint_that_is_gone_is_not_named() -> None:
    class Tidy(Model):
        def on_fit_end(self) -> None:
            for path in Path("runs/1/checkpoints").glob("epoch*"):
                path.unlink()

    ProjectCLI(Tidy, Data, args=["fit", "--config=config.yaml"])
    summary = read("runs/1/summary.json")
    assert summary["best_checkpoint"] is None
    assert summary["last_checkpoint"] == "runs/1/checkpoints/last.ckpt"


def test_interrupted_write_leaves_the_best_checkpoint_to_be_found() -> None:
    class Interrupted(Model):
        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            if self.current_epoch == 1:
                raise KeyboardInterrupt

    with pytest.raises(SystemExit):
        ProjectCLI(Interrupted, Data, args=["fit", "--config=config.yaml"])
    summary = read("runs/1/summary.json")
    assert "epoch=0" in summary["best_checkpoint"]
    run("test")
    assert read("runs/1/test.json")["ckpt_path"] == summary["best_checkpoint"]


def test_interrupted_fit_keeps_a_checkpoint_and_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert exit_code("fit", "--model.fail=interrupt", "--json") == 130
    summary = read("runs/1/summary.json")
    assert summary["status"] == "interrupted"
    assert Path(summary["last_checkpoint"]).is_file()
    out, err = capsys.readouterr()
    assert json.loads(out) == summary
    assert "kept: runs/1/checkpoints/last.ckpt" in err
    assert "--model.fail=interrupt --json --resume auto" in err
    run("fit", "--ckpt_path=last")
    assert read("runs/2/summary.json")["status"] == "completed"


def test_loss_that_is_not_finite_fails_without_a_trace(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert exit_code("fit", "--model.fail=ours") == 1
    summary = read("runs/1/summary.json")
    assert summary["status"] == "failed"
    assert Path(summary["best_checkpoint"]).is_file()
    err = capsys.readouterr().err
    assert "error: The training loss became nan" in err
    assert err.count("checkpoints/last.ckpt") == 1


def test_loss_that_is_not_finite_at_once_says_once_that_nothing_is_kept(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Broken(Model):
        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            return torch.full((), float("nan"), requires_grad=True)

    with pytest.raises(SystemExit):
        ProjectCLI(Broken, Data, args=["fit", "--config=config.yaml"])
    assert capsys.readouterr().err.count("No checkpoint") == 1


def test_run_folder_that_the_system_refuses_is_a_failure(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("runs").touch()
    assert exit_code("fit") == 1
    assert "cannot be made" in capsys.readouterr().err


def test_run_whose_bad_input_shows_late_is_kept(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Late(Model):
        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            if self.global_step == 2:
                raise MisconfigurationException("this comes late")
            return super().training_step(batch, batch_idx)

    args = ["fit", "--config=config.yaml", "--trainer.log_every_n_steps=50"]
    with pytest.raises(SystemExit) as exit_info:
        ProjectCLI(Late, Data, args=args)
    assert exit_info.value.code == 2
    assert read("runs/1/summary.json")["steps"] == 2
    assert "removed" not in capsys.readouterr().err


def test_error_of_the_project_passes_through_and_the_run_is_failed() -> None:
    with pytest.raises(ZeroDivisionError, match="own mistake"):
        run("fit", "--model.fail=user")
    assert read("runs/1/summary.json")["status"] == "failed"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["fit", "--data.length=-1"], "`length` is -1"),
        (["fit", "--data.length=0"], ""),
        (["fit", "--trainer.max_steps=-5"], "max_steps"),
        (["fit", "--trainer.min_epochs=2", "--trainer.accelerator=abacus"], "abacus"),
        (["fit", "--ckpt_path=last"], "no run yet"),
        (["fit", "--ckpt_path=nothing.ckpt"], "No checkpoint at `nothing.ckpt`"),
        (["test"], "Train first"),
        (["test", "--ckpt_path=config.yaml"], "`config.yaml`"),
        (["predict", "--ckpt_path=7"], "no run 7"),
    ],
)
def test_bad_input_is_one_message_and_leaves_the_disk_as_it_was(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files()
    assert exit_code(*args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    [line] = [line for line in err.splitlines() if line.startswith("error: ")]
    assert message in line
    assert "Traceback" not in err
    assert files() == before
    assert not Path("runs").exists()


def test_truncated_checkpoint_is_refused_and_no_run_starts() -> None:
    run("fit")
    path = Path("runs/1/checkpoints/last.ckpt")
    path.write_bytes(path.read_bytes()[:-100])
    before = files()
    assert exit_code("fit", f"--ckpt_path={path}") == 2
    assert files() == before


def test_logger_of_the_config_is_respected() -> None:
    run("fit", "--trainer.logger=false")
    assert "runs/1/metrics.csv" not in files()
    assert read("runs/1/summary.json")["best_checkpoint"].startswith("runs/1/")


def test_warnings_of_the_runtime_do_not_show_its_source() -> None:
    shown: list[str] = []

    class Warned(Model):
        def on_fit_start(self) -> None:
            for path in (lightgen_runtime.__file__, __file__):
                warning = UserWarning("the disk is full")
                shown.append(warnings.formatwarning(warning, UserWarning, path, 1))

    before = warnings.formatwarning
    ProjectCLI(Warned, Data, args=["fit", "--config=config.yaml"])
    assert shown[0] == "warning: the disk is full\n"
    assert f"{__file__}:1: UserWarning: the disk is full" in shown[1]
    assert warnings.formatwarning is before


def test_subclass_may_add_arguments_and_keeps_the_json_flag() -> None:
    class CLI(ProjectCLI):
        def add_arguments_to_parser(self, parser: Any) -> None:
            parser.add_lightning_class_args(EarlyStopping, "stopping")
            parser.set_defaults({"stopping.monitor": "val_loss"})

    cli = CLI(Model, Data, args=["fit", "--config=config.yaml", "--json"])
    assert any(isinstance(c, EarlyStopping) for c in cli.trainer.callbacks)


def start_program(folder: Path, *args: str) -> subprocess.Popen[str]:
    """Start a program as a generated project is one: `python -m program`."""
    program = f"""\
        import sys
        import {__name__} as parts
        from lightgen_runtime.cli import ProjectCLI

        class Model(parts.Model):
            def on_train_epoch_start(self) -> None:
                print("epoch", self.current_epoch, flush=True)

        if __name__ == "__main__":
            ProjectCLI(Model, parts.Data)
    """
    (folder / "program.py").write_text(textwrap.dedent(program))
    path = [str(folder), str(Path(__file__).parent), *sys.path]
    return subprocess.Popen(
        [sys.executable, "-m", "program", *args],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_ctrl_c_ends_the_program_with_130(project: Path) -> None:
    process = start_program(
        project, "fit", "--config=config.yaml", "--trainer.max_epochs=-1", "--json"
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line == "epoch 2\n":
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(out.splitlines()[-1])["status"] == "interrupted"
    assert "Traceback" not in err
    command = "python -m program fit --config=config.yaml --trainer.max_epochs=-1"
    assert f"resume: PYTHONPATH=. {command} --json --resume auto" in err


@pytest.mark.slow
def test_error_of_the_project_shows_its_trace_and_ends_with_1(project: Path) -> None:
    process = start_program(
        project, "fit", "--config=config.yaml", "--model.fail=user", "--json"
    )
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.rstrip().endswith("ZeroDivisionError: the project's own mistake")
    assert json.loads(out.splitlines()[-1])["status"] == "failed"
