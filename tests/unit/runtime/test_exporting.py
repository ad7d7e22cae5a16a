"""The subcommand `export`: a checkpoint's model as a file, from a project's root."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lightgen_runtime import LightningDataModule, LightningModule
from lightgen_runtime.cli import ProjectCLI

CONFIG = """\
trainer:
  accelerator: cpu
  max_epochs: 1
  enable_progress_bar: false
  enable_model_summary: false
"""

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


class Net(LightningModule):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(4, width)
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(self.dropout(x))
        return result

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self(batch[0]).square().mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self(batch[0]).square().mean())

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test_loss", self(batch[0]).square().mean())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Data(LightningDataModule):
    def train_dataloader(self) -> Any:
        rows = TensorDataset(torch.ones(8, 4), torch.ones(8))
        return DataLoader(rows, batch_size=4)

    val_dataloader = test_dataloader = train_dataloader


class NoRows(Data):
    val_dataloader = LightningDataModule.val_dataloader


class Branching(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.sum() > 0 else x


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mymodel"])
    Path("config.yaml").write_text(CONFIG)


def run(*args: str, model: Any = Net, data: Any = Data) -> None:
    ProjectCLI(model, data, args=[args[0], "--config=config.yaml", *args[1:]])


def refused(capsys: pytest.CaptureFixture[str], *args: str, **kwargs: Any) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        run(*args, **kwargs)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


def weights() -> dict[str, Tensor]:
    (path,) = Path("runs/1/checkpoints").glob("*.ckpt")
    found: dict[str, Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return found


def test_weights_with_where_they_are_from(capsys: pytest.CaptureFixture[str]) -> None:
    run("fit", "--model.width=5")
    run("export", "--json")
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["exported"] == "runs/1/model.safetensors"
    assert report["run"] == "runs/1"
    with safe_open("runs/1/model.safetensors", "pt") as file:
        about = json.loads(file.metadata()["lightgen"])
        for name, weight in weights().items():
            assert torch.equal(file.get_tensor(name), weight)
    assert about["class"] == f"{__name__}.Net"
    assert about["hyper_parameters"] == {"width": 5}
    assert (about["epoch"], about["global_step"]) == (0, 2)


def test_exported_weights_are_evaluated_like_the_checkpoint() -> None:
    run("fit", "--model.width=5")
    Path("elsewhere").mkdir()
    run("export", "--output=elsewhere/w.safetensors")
    run("test", "--ckpt_path=elsewhere/w.safetensors")
    run("test", "--ckpt_path=best")
    one, other = (
        json.loads(Path(f"runs/{n}/test.json").read_text())["metrics"] for n in (2, 1)
    )
    assert one == other
    assert Net.load_from_checkpoint("elsewhere/w.safetensors").hparams == {"width": 5}


@pytest.mark.filterwarnings("ignore:The given buffer is not writable")  # torch 2.11's
def test_program_of_torch_export_takes_any_batch() -> None:
    run("fit")
    run("export", "--format=torch-export")
    extra = {"lightgen.json": ""}
    program = torch.export.load("runs/1/model.pt2", extra_files=extra).module()
    layer = torch.nn.Linear(4, 3)
    layer.load_state_dict({k.removeprefix("layer."): v for k, v in weights().items()})
    x = torch.randn(7, 4)
    assert torch.allclose(program(x), layer(x))  # and no dropout
    assert json.loads(extra["lightgen.json"])["class"] == f"{__name__}.Net"


def test_onnx_model_takes_any_batch(capfd: pytest.CaptureFixture[str]) -> None:
    run("fit")
    capfd.readouterr()
    run("export", "--format=onnx")
    model = onnx.load("runs/1/model.onnx")
    onnx.checker.check_model(model)
    first, second = model.graph.input[0].type.tensor_type.shape.dim
    assert (first.dim_param != "", second.dim_value) == (True, 4)
    assert json.loads(model.metadata_props[0].value)["class"] == f"{__name__}.Net"
    assert "torchvision" not in capfd.readouterr().err


def test_example_input_comes_first() -> None:
    class Known(Net):
        def __init__(self) -> None:
            super().__init__()
            self.example_input_array = torch.zeros(2, 4)

    run("fit", model=Known, data=Data)
    run("export", "--format=torch-export", model=Known, data=NoRows)
    assert Path("runs/1/model.pt2").is_file()


def test_nothing_to_call_forward_with(capsys: pytest.CaptureFixture[str]) -> None:
    run("fit")
    said = refused(capsys, "export", "--format=torch-export", data=NoRows)
    assert "set `self.example_input_array`" in said
    assert "`predict_dataloader`" in said


def test_forward_that_cannot_be_exported(capsys: pytest.CaptureFixture[str]) -> None:
    run("fit", model=Branching)
    said = refused(capsys, "export", "--format=torch-export", model=Branching)
    assert "`forward` of Branching cannot be exported to torch-export" in said
    assert not Path("runs/1/model.pt2").exists()


@pytest.mark.parametrize(
    ("package", "file_format", "install"),
    [
        ("safetensors.torch", "safetensors", "pip install safetensors"),
        ("onnx", "onnx", "pip install onnx onnxscript"),
    ],
)
def test_package_that_is_missing(
    package: str,
    file_format: str,
    install: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run("fit")
    monkeypatch.setitem(sys.modules, package, None)
    assert install in refused(capsys, "export", f"--format={file_format}")


def test_checkpoint_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no run yet" in refused(capsys, "export")
    assert not Path("runs").exists()


def test_weights_of_another_model(capsys: pytest.CaptureFixture[str]) -> None:
    run("fit")
    said = refused(capsys, "export", "--model.width=9")
    assert "do not fit Net" in said


def code_of(*args: str) -> object:
    with pytest.raises(SystemExit) as stop:
        run(*args)
    return stop.value.code


def test_export_replaces_a_file_only_when_told_to(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run("fit")
    before = Path("config.yaml").read_text()
    assert code_of("export", "--output=config.yaml") == 3
    assert "`config.yaml` exists" in capsys.readouterr().err
    assert Path("config.yaml").read_text() == before
    run("export")
    run("export", "--force")
    (kept,) = Path("runs/1/checkpoints").glob("*.ckpt")
    assert code_of("export", f"--output={kept}", "--force") == 3


def test_export_that_the_system_refuses_is_one_message(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("fit")

    def refuse(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    assert code_of("export") == 1
    assert "No space left" in capsys.readouterr().err


def test_mistyped_format_is_answered_with_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert code_of("export", "--format=onxx") == 2
    said = capsys.readouterr().err
    assert "`--format`: got 'onxx', expected 'safetensors' or" in said
    assert "; did you mean `onnx`?" in said
