"""`python -m lightgen_runtime.ckpt`: looking at files, comparing and converting them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import Small, fitted, loader, quiet
from torch.optim import Adam
from torch.optim.lr_scheduler import StepLR

from lightgen_runtime.callbacks import EarlyStopping, ModelCheckpoint
from lightgen_runtime.ckpt.__main__ import main
from lightgen_runtime.io.integrity import sha256_of
from lightgen_runtime.io.store import reconcile


class Saved(Small):
    def __init__(self, lr: float = 0.1, sizes: tuple[int, ...] = (1, 2)) -> None:
        super().__init__()
        self.save_hyperparameters()

    def configure_optimizers(self) -> Any:
        optimizer = Adam(self.parameters(), lr=self.hparams.lr)
        return [optimizer], [StepLR(optimizer, 1)]


def saved(path: Path, lr: float = 0.1, **kwargs: Any) -> Path:
    trainer = fitted(Saved(lr), callbacks=EarlyStopping("val_loss"))
    trainer.save_checkpoint(path, **kwargs)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return saved(tmp_path / "x.ckpt")


def change(path: Path, to: Path, **entries: Any) -> Path:
    torch.save({**torch.load(path, weights_only=True), **entries}, to)
    return to


@pytest.fixture
def ckpt(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command; return its exit status and what it printed."""

    def run(*arguments: Any, code: int = 0) -> str:
        capsys.readouterr()
        assert main(list(map(str, arguments))) == code
        printed = capsys.readouterr()
        return printed.out if code not in (1, 2, 3) else printed.err

    return run


def report(ckpt: Any, *arguments: Any, code: int = 0) -> dict[str, Any]:
    lines = ckpt(*arguments, "--json", code=code).splitlines()
    assert len(lines) == 1
    found: dict[str, Any] = json.loads(lines[0])
    assert found.pop("command") == f"ckpt {arguments[0]}"
    return found


# ---- inspect ----


def test_inspect_tells_what_a_checkpoint_holds(ckpt: Any, path: Path) -> None:
    found = report(ckpt, "inspect", path)
    assert (found["epoch"], found["step"], found["resumes"]) == (1, 4, True)
    assert found["kind"] == "checkpoint of lightgen, format 2"
    assert found["hyperparameters"] == {"model.lr": 0.1, "model.sizes": [1, 2]}
    assert found["parameters"] == [
        {"name": "layer.weight", "shape": [1, 4], "dtype": "float32"},
        {"name": "layer.bias", "shape": [1], "dtype": "float32"},
    ]
    assert (found["numbers"], found["weight_bytes"]) == (5, 20)
    (optimizer,) = found["optimizers"]
    assert optimizer["groups"][0]["parameters"] == 2
    assert optimizer["groups"][0]["lr"] == pytest.approx(0.01)
    assert found["schedulers"][0]["last_epoch"] == 1
    (stopping,) = found["callbacks"].values()
    assert stopping["patience"] == 3
    page = ckpt("inspect", path)
    for part in ("layer", "weight (1, 4), bias (1,)", "lr 0.01", "model.sizes"):
        assert part in page


def test_inspect_tells_kinds_apart(ckpt: Any, path: Path, tmp_path: Path) -> None:
    content = torch.load(path, weights_only=True)
    weights = tmp_path / "w.pt"
    torch.save(content["state_dict"], weights)
    assert report(ckpt, "inspect", weights)["kind"] == "state_dict of torch"
    del content["lightgen"]
    torch.save(content, weights)
    kind = "checkpoint in the format of Lightning 2.6.0"
    assert report(ckpt, "inspect", weights)["kind"] == kind
    alone = saved(tmp_path / "alone.ckpt", weights_only=True)
    found = report(ckpt, "inspect", alone)
    assert found["kind"] == "checkpoint of lightgen, format 2, weights only"
    assert "no: it holds weights only" in ckpt("inspect", alone)


def test_inspect_shows_the_names_of_optimizers(
    ckpt: Any, path: Path, tmp_path: Path
) -> None:
    own = torch.load(path, weights_only=True)["lightgen"]
    own |= {"optimizers": [{"class": "AdamW"}], "schedulers": [{"class": "StepLR"}]}
    found = report(ckpt, "inspect", change(path, tmp_path / "y.ckpt", lightgen=own))
    assert found["optimizers"][0]["class"] == "AdamW"
    assert found["schedulers"][0]["class"] == "StepLR"


@pytest.mark.parametrize("command", ["inspect", "verify", "convert"])
def test_missing_file_is_usage(command: str, ckpt: Any, path: Path) -> None:
    options = ["--to", "weights"] if command == "convert" else []
    said = ckpt(command, path.with_name("y.ckpt"), *options, code=2)
    assert said.startswith("error: No checkpoint at")
    assert "Nearest name: `x.ckpt`" in said


def test_folder_is_usage(ckpt: Any, tmp_path: Path) -> None:
    assert "is a folder" in ckpt("inspect", tmp_path, code=2)


def test_name_of_a_run_is_looked_up(
    ckpt: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(Path("runs/3/checkpoints/a.ckpt"))
    for name in ("last", "3"):
        found = report(ckpt, "inspect", name)
        assert found["path"] == str(Path("runs/3/checkpoints/a.ckpt"))
    assert "There is no run 4" in ckpt("inspect", "4", code=2)


def test_inspect_fits_a_narrow_terminal(
    ckpt: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    keeper = ModelCheckpoint(tmp_path / "kept", monitor="val_loss", save_last=True)
    fitted(Saved(), callbacks=keeper, enable_checkpointing=True)
    monkeypatch.chdir(tmp_path)
    page = ckpt("inspect", "kept/last.ckpt")
    assert max(map(len, page.splitlines())) <= 60
    assert "lr 0.01" in page
    callbacks = page.partition("callbacks\n")[2]
    assert "best_model_score" in callbacks
    for noise in ("None", "best_k_models", str(tmp_path)):
        assert noise not in callbacks


def test_mistyped_choices_are_answered_alike(
    ckpt: Any, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = ckpt("convert", path, "--to", "wieghts", code=2)
    assert said.startswith("error: `--to`: got 'wieghts', expected 'current' or ")
    assert said.endswith("; did you mean `weights`?\n")
    monkeypatch.chdir(path.parent)
    said = ckpt("inspect", "betst", code=2)
    assert said == "error: No checkpoint at `betst`; did you mean `best`?\n"


# ---- verify ----


def test_verify_tells_what_a_file_is_good_for(
    ckpt: Any, path: Path, tmp_path: Path
) -> None:
    found = report(ckpt, "verify", path)
    assert (found["sound"], found["problems"]) == (True, [])
    assert found["good_for"] == ["weights", "resume"]
    alone = saved(tmp_path / "alone.ckpt", weights_only=True)
    assert report(ckpt, "verify", alone)["good_for"] == ["weights"]
    assert "good for: validate, test, predict\n" in ckpt("verify", alone)


@pytest.mark.parametrize("how", ["cut", "flipped", "code", "text"])
def test_verify_finds_what_is_wrong(how: str, ckpt: Any, path: Path) -> None:
    content = bytearray(path.read_bytes())
    if how == "cut":
        path.write_bytes(content[:-9])
    elif how == "flipped":
        weight = torch.load(path, weights_only=True)["state_dict"]["layer.weight"]
        content[content.index(weight.numpy().tobytes()) + 2] ^= 1
        path.write_bytes(content)
    elif how == "code":
        torch.save({"state_dict": {}, "x": Path}, path)
    else:
        path.write_text("no")
    found = report(ckpt, "verify", path, code=5)
    assert (found["sound"], found["good_for"]) == (False, [])
    assert "NOT sound" in ckpt("verify", path, code=5)


def test_verify_compares_with_the_manifest(ckpt: Any, path: Path) -> None:
    reconcile(path.parent)
    manifest = path.with_name("manifest.json")
    listed = json.loads(manifest.read_text())
    listed["checkpoints"][path.name]["sha256"] = sha256_of(path)
    manifest.write_text(json.dumps(listed))
    assert report(ckpt, "verify", path)["in_manifest"]
    assert "agrees with manifest.json" in ckpt("verify", path)
    time, other = path.stat(), saved(path.with_name("other.ckpt"), lr=0.2)
    path.write_bytes(other.read_bytes())
    os.utime(path, ns=(time.st_atime_ns, time.st_mtime_ns))
    found = report(ckpt, "verify", path, code=5)
    assert any("its content is not" in problem for problem in found["problems"])
    assert found["good_for"] == []
    for nonsense in ("{", "[]", '{"checkpoints": 1}'):
        manifest.write_text(nonsense)
        assert not report(ckpt, "verify", path)["in_manifest"]


def test_verify_takes_a_file_that_was_replaced_before_a_kill(
    ckpt: Any, path: Path
) -> None:
    reconcile(path.parent)
    saved(path.with_name("new.ckpt"), lr=0.2).replace(path)
    os.utime(path, (9e8, 9e8))
    found = report(ckpt, "verify", path)
    assert found["good_for"] == ["weights", "resume"]
    page = ckpt("verify", path)
    assert ": sound" in page
    assert "manifest.json means another file of that name" in page


def test_verify_names_weights_that_are_not_finite(
    ckpt: Any, path: Path, tmp_path: Path
) -> None:
    weights = torch.load(path, weights_only=True)["state_dict"]
    weights["layer.bias"] = torch.tensor([float("nan")])
    broken = change(path, tmp_path / "y.ckpt", state_dict=weights)
    (problem,) = report(ckpt, "verify", broken, code=5)["problems"]
    assert problem == "weights that are not finite: layer.bias"


def test_verify_names_a_newer_format(ckpt: Any, path: Path, tmp_path: Path) -> None:
    newer = change(path, tmp_path / "y.ckpt", lightgen={"format": 99})
    (problem,) = report(ckpt, "verify", newer, code=5)["problems"]
    assert "format 99 is newer" in problem


# ---- diff ----


def test_diff_of_a_file_with_itself(ckpt: Any, path: Path) -> None:
    assert report(ckpt, "diff", path, path)["same"]
    assert "the same" in ckpt("diff", path, path)


def test_diff_of_two_runs_that_differ_by_their_folders_only(
    ckpt: Any, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        keeper = ModelCheckpoint(tmp_path / name, monitor="val_loss", save_last=True)
        fitted(Saved(), callbacks=keeper, enable_checkpointing=True)
    paths = [tmp_path / name / "last.ckpt" for name in ("one", "two")]
    assert report(ckpt, "diff", *paths)["same"]


def test_diff_says_of_weights_that_they_are_the_same(
    ckpt: Any, path: Path, tmp_path: Path
) -> None:
    other = change(path, tmp_path / "y.ckpt", global_step=9)
    assert "weights: the same" in ckpt("diff", path, other, code=6)


def test_diff_tells_every_difference(ckpt: Any, path: Path, tmp_path: Path) -> None:
    content = torch.load(path, weights_only=True)
    weights = content["state_dict"]
    weights["layer.bias"] = weights["layer.bias"] + 0.5
    weights["layer.weight"] = torch.zeros(2, 4)
    weights["head.weight"] = torch.zeros(1)
    other = change(
        path,
        tmp_path / "y.ckpt",
        hyper_parameters={"lr": 0.3, "width": 2},
        global_step=9,
        optimizer_states=[],
    )
    torch.save({**torch.load(other, weights_only=True), "state_dict": weights}, other)
    found = report(ckpt, "diff", path, other, code=6)
    assert not found["same"]
    assert found["only_in_second"] == ["head.weight"]
    assert found["weights"]["layer.bias"]["max_abs"] == pytest.approx(0.5)
    assert found["weights"]["layer.weight"]["shapes"] == [[1, 4], [2, 4]]
    assert found["hyperparameters"] == {
        "model.lr": [0.1, 0.3],
        "model.sizes": [[1, 2], "(absent)"],
        "model.width": ["(absent)", 2],
    }
    assert found["counters"] == {"global_step": [4, 9]}
    assert found["training"] == ["optimizer_states"]
    page = ckpt("diff", path, other, code=6)
    for part in ("+ head.weight", "up to 0.5", "0.1 -> 0.3", "optimizer_states"):
        assert part in page


def test_diff_takes_nan_for_the_same(ckpt: Any, path: Path, tmp_path: Path) -> None:
    weights = torch.load(path, weights_only=True)["state_dict"]
    weights["layer.bias"] = torch.tensor([float("nan")])
    broken = change(path, tmp_path / "y.ckpt", state_dict=weights)
    assert report(ckpt, "diff", broken, broken)["same"]
    assert report(ckpt, "diff", broken, path, code=6)["weights"]["layer.bias"] == {
        "max_abs": "nan",
        "changed": 1,
    }


# ---- convert ----


@pytest.mark.parametrize("form", ["weights", "safetensors"])
def test_converted_weights_load_and_evaluate_alike(
    form: str, ckpt: Any, path: Path
) -> None:
    written = [Path(p) for p in report(ckpt, "convert", path, "--to", form)["written"]]
    loaded = Saved.load_from_checkpoint(written[0])
    before = Saved.load_from_checkpoint(path)
    assert (loaded.hparams.lr, list(loaded.hparams.sizes)) == (0.1, [1, 2])
    for name, weight in before.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight)
    (metrics,) = quiet().test(Saved(), loader(), ckpt_path=written[0], verbose=False)
    assert [metrics] == quiet().test(Saved(), loader(), ckpt_path=path, verbose=False)
    assert report(ckpt, "inspect", written[0])["step"] == 4
    if form == "safetensors":
        twin = json.loads(written[1].read_text())
        assert twin["global_step"] == 4
        assert twin["optimizer_states"][0]["param_groups"][0]["params"] == [0, 1]


def test_converted_state_dict_is_torchs_own(ckpt: Any, path: Path) -> None:
    ckpt("convert", path, "--to", "state-dict")
    weights = torch.load(path.with_name("x.pt"), weights_only=True)
    module = Saved()
    module.load_state_dict(weights)


def test_converted_file_of_an_old_lightning_goes_on(
    ckpt: Any, path: Path, tmp_path: Path
) -> None:
    content = torch.load(path, weights_only=True)
    del content["lightgen"], content["loops"]
    content |= {"pytorch-lightning_version": "1.5.10", "epoch": 1}
    torch.save(content, tmp_path / "old.ckpt")
    path = tmp_path / "new.ckpt"
    ckpt("convert", tmp_path / "old.ckpt", "--to", "current", "--output", path)
    assert report(ckpt, "inspect", path)["kind"].endswith("Lightning 2.6.0")
    trainer = quiet(max_epochs=3, callbacks=EarlyStopping("val_loss"))
    trainer.fit(Saved(), loader(), loader(4), ckpt_path=path)
    assert (trainer.current_epoch, trainer.global_step) == (3, 12)


def test_converting_keeps_the_file(ckpt: Any, path: Path) -> None:
    before = path.read_bytes()
    options = ("convert", path, "--to", "weights", "--output", path)
    assert "is the file to be converted" in ckpt(*options, code=2)
    assert path.read_bytes() == before


@pytest.mark.parametrize("taken", ["w.safetensors", "w.json"])
def test_converting_replaces_a_file_only_when_told_to(
    taken: str, ckpt: Any, path: Path
) -> None:
    (path.parent / taken).write_text("mine")
    output = path.with_name("w.safetensors")
    options = ("convert", path, "--to", "safetensors", "--output", output)
    assert "exists. Name another" in ckpt(*options, code=3)
    assert (path.parent / taken).read_text() == "mine"
    ckpt(*options, "--force")
    assert (path.parent / taken).read_bytes() != b"mine"


def test_converting_never_replaces_a_checkpoint_of_a_run(ckpt: Any, path: Path) -> None:
    kept = saved(path.with_name("last.ckpt"))
    reconcile(path.parent)
    before = kept.read_bytes()
    options = ("convert", path, "--to", "weights", "--output", kept, "--force")
    assert "is a checkpoint of a run" in ckpt(*options, code=3)
    assert kept.read_bytes() == before


def test_converting_makes_no_folder(ckpt: Any, path: Path) -> None:
    output = path.parent / "absent/y.ckpt"
    options = ("convert", path, "--to", "weights", "--output", output)
    assert "There is no folder" in ckpt(*options, code=2)
    assert not output.parent.exists()


@pytest.mark.parametrize("form", ["weights", "state-dict"])
def test_write_that_the_system_refuses_is_a_failure(
    form: str, ckpt: Any, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    assert "No space left" in ckpt("convert", path, "--to", form, code=1)


def test_weights_without_a_run_have_no_current_form(ckpt: Any, tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1)}, tmp_path / "w.pt")
    said = ckpt("convert", tmp_path / "w.pt", "--to", "current", code=2)
    assert "weights without a run" in said


# ---- the program ----


def test_program_ends_with_its_status(path: Path) -> None:
    path.write_text("no")
    done = subprocess.run(
        [sys.executable, "-m", "lightgen_runtime.ckpt", "verify", str(path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 5
    assert "NOT sound" in done.stdout
    assert "Traceback" not in done.stderr
