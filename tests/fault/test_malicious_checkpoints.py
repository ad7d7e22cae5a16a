"""A file never decides what runs: each is refused with an error of ours, and runs nothing."""

import copy
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from malicious_files import (
    BY_CONFIG,
    FILES,
    MARKER,
    NAMES,
    OBJECTS,
    RESUME_TRAPS,
    SAFETENSORS,
    TRAPS,
    YAML,
    Gadget,
    evil_module,
    write,
)
from torch.utils.data import DataLoader

import lightgen_runtime as L
from lightgen_runtime.callbacks import EarlyStopping, ModelCheckpoint, SpikeDetection
from lightgen_runtime.ckpt.__main__ import main
from lightgen_runtime.io.safetensors_file import write_safetensors
from lightgen_runtime.utilities.exceptions import (
    CheckpointFormatError,
    LightgenRuntimeError,
)

pytestmark = pytest.mark.filterwarnings("ignore")


class Net(L.LightningModule):
    def __init__(
        self,
        width: int = 3,
        part: torch.nn.Module | None = None,
        function: Callable[[Any], Any] | None = None,
        kind: type | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(4, width)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.layer(batch).square().mean()
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.layer(batch).square().mean())

    test_step = validation_step

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        return self.layer(batch)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters())
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


class Rows(L.LightningDataModule):
    def __init__(self, rows: int = 4) -> None:
        super().__init__()
        self.save_hyperparameters()

    def loader(self) -> Any:
        return DataLoader(torch.ones(self.hparams.rows, 4), batch_size=2)

    train_dataloader = val_dataloader = test_dataloader = predict_dataloader = loader

    def state_dict(self) -> dict[str, Any]:
        return {"seen": 1}


class Counting(L.Callback):
    def state_dict(self) -> dict[str, Any]:
        return {"count": 1}


def trainer(*callbacks: L.Callback, epochs: int = 2) -> L.Trainer:
    stopping = EarlyStopping("val_loss", patience=9)
    stopping.__class__ = _Stopping
    return L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Counting(), stopping, *callbacks],
    )


class _Stopping(EarlyStopping):
    state_key = "EarlyStopping"


# A callback of the package's own, by a key that is easy to write.
_Stopping.__module__ = EarlyStopping.__module__


def runner(method: str) -> Callable[[Path], Any]:
    return lambda path: getattr(trainer(), method)(Net(), Rows(), ckpt_path=path)


ENTRIES: dict[str, Callable[[Path], Any]] = {
    "module": Net.load_from_checkpoint,
    "datamodule": Rows.load_from_checkpoint,
    **{name: runner(name) for name in ("fit", "validate", "test", "predict")},
}


# ---- what would be noticed ----

_armed = False
_alarms: list[str] = []
_ALWAYS_WRONG = (
    "os.system",
    "subprocess.Popen",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
)


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if not _armed:
        return
    if event in _ALWAYS_WRONG or event in ("exec", "compile", "import"):
        _alarms.append(f"{event} {args!r:.200}")


sys.addaudithook(_watch)
"".encode("cp437")  # what names in archives are read with, imported when it is needed


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A sound checkpoint's content, having been through every entry point."""
    path = tmp_path_factory.mktemp("sound") / "sound.ckpt"
    training = trainer(epochs=1)
    training.fit(Net(), Rows())
    training.save_checkpoint(path)
    for enter in ENTRIES.values():
        enter(path)  # so that what is imported late is imported
    content: dict[str, Any] = torch.load(path, weights_only=True)
    weights = path.with_suffix(".safetensors")
    write_safetensors(weights, content["state_dict"], {})
    Net.load_from_checkpoint(weights)
    broken = path.with_name("broken.ckpt")
    for late in (
        Gadget(),
        {**content, "hyper_parameters": {"part": "x.y", **BY_CONFIG}},
    ):
        write(late, broken)
        with pytest.raises(LightgenRuntimeError):
            Net.load_from_checkpoint(broken)
    return content


@pytest.fixture
def watched(
    sound: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Callable[[Path], Any], Path], Any]]:
    """What calls an entry point, and sees to it that nothing runs."""
    marker = tmp_path / "marker"
    monkeypatch.setenv(MARKER, str(marker))
    (tmp_path / "modules").mkdir()
    evil_module(tmp_path / "modules")
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    monkeypatch.chdir(tmp_path)

    def call(enter: Callable[[Path], Any], path: Path) -> Any:
        global _armed
        _alarms.clear()
        _armed = True
        try:
            return enter(path)
        finally:
            _armed = False
            assert not marker.exists()
            assert "evil_module" not in sys.modules
            assert _alarms == []

    yield call
    assert not Path("x").exists()


def test_alarm_is_raised_by_what_runs(watched: Any, tmp_path: Path) -> None:
    write(Gadget(), tmp_path / "x.ckpt")
    with pytest.raises(AssertionError):
        watched(lambda path: torch.load(path, weights_only=False), tmp_path / "x.ckpt")
    Path(os.environ[MARKER]).unlink()


def test_sound_file_raises_no_alarm(
    watched: Any, sound: dict[str, Any], tmp_path: Path
) -> None:
    write(sound, tmp_path / "x.ckpt")
    for enter in ENTRIES.values():
        watched(enter, tmp_path / "x.ckpt")


def refused(watched: Any, enter: Callable[[Path], Any], path: Path) -> str:
    with pytest.raises(LightgenRuntimeError) as caught:
        watched(enter, path)
    message = str(caught.value)
    assert str(path) in message or "`ckpt_path`" in message
    return message


# ---- one file after the other ----


@pytest.mark.parametrize("case", OBJECTS)
def test_objects_are_refused_wherever_they_are(
    case: str, watched: Any, sound: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "bad.ckpt"
    write(OBJECTS[case](copy.deepcopy(sound)), path)
    for enter in ENTRIES.values():
        message = refused(watched, enter, path)
        assert "not plain data" in message
        assert "add_safe_globals" in message


@pytest.mark.parametrize("case", FILES)
def test_files_of_another_kind_are_refused(
    case: str, watched: Any, sound: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "bad.ckpt"
    FILES[case](copy.deepcopy(sound), path)
    for enter in ENTRIES.values():
        refused(watched, enter, path)


@pytest.mark.parametrize("case", SAFETENSORS)
def test_safetensors_that_are_none_are_refused(
    case: str, watched: Any, sound: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "bad.safetensors"
    SAFETENSORS[case](sound, path)
    for enter in ENTRIES.values():
        refused(watched, enter, path)


@pytest.mark.parametrize("case", TRAPS)
def test_data_that_is_a_trap_is_refused(
    case: str, watched: Any, sound: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "bad.ckpt"
    write(TRAPS[case](copy.deepcopy(sound)), path)
    for enter in ENTRIES.values():
        refused(watched, enter, path)


@pytest.mark.parametrize("case", RESUME_TRAPS)
def test_state_that_is_a_trap_is_refused_by_a_fit(
    case: str, watched: Any, sound: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "bad.ckpt"
    write(RESUME_TRAPS[case](copy.deepcopy(sound)), path)
    refused(watched, ENTRIES["fit"], path)
    watched(ENTRIES["module"], path)


@pytest.mark.parametrize("case", NAMES)
def test_names_build_nothing(
    case: str, watched: Any, sound: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "bad.ckpt"
    write(NAMES[case](copy.deepcopy(sound)), path)
    with pytest.raises(CheckpointFormatError):
        watched(Net.load_from_checkpoint, path)
    for name in ("fit", "validate", "datamodule"):  # they build nothing from it
        watched(ENTRIES[name], path)


@pytest.mark.parametrize("case", YAML)
def test_hyperparameter_files_build_nothing(
    case: str, watched: Any, sound: dict[str, Any], tmp_path: Path
) -> None:
    write(sound, tmp_path / "sound.ckpt")
    path = tmp_path / "hparams.yaml"
    path.write_text(YAML[case])

    def enter(path: Path) -> Any:
        return Net.load_from_checkpoint(tmp_path / "sound.ckpt", hparams_file=path)

    with pytest.raises(CheckpointFormatError):
        watched(enter, path)


@pytest.mark.parametrize("case", [*OBJECTS, *FILES, *TRAPS])
def test_looking_at_a_file_runs_nothing(
    case: str,
    watched: Any,
    sound: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "bad.ckpt"
    content = copy.deepcopy(sound)
    if case in FILES:
        FILES[case](content, path)
    else:
        write({**OBJECTS, **TRAPS}[case](content), path)
    for command, status in (("inspect", 2), ("verify", 5)):
        assert watched(lambda path, c=command: main([c, str(path)]), path) == status
    said = capsys.readouterr()
    assert str(path) in said.err
    assert "NOT sound" in said.out


# ---- paths in a file ----


def test_paths_in_a_file_remove_and_overwrite_nothing(
    watched: Any, sound: dict[str, Any], tmp_path: Path
) -> None:
    victim = tmp_path / "victim.ckpt"
    victim.write_text("precious")
    folder = tmp_path / "run"
    (tmp_path / "away").mkdir()
    link = folder / "link.ckpt"
    folder.mkdir()
    link.symlink_to(victim)
    for former in (str(folder), str(tmp_path), "", None):
        for named in (str(victim), f"{folder}/../victim.ckpt", str(link)):
            keeping = ModelCheckpoint(folder, monitor="val_loss", save_last=True)
            spikes = SpikeDetection()
            state = {
                **keeping.state_dict(),
                "dirpath": former,
                "best_model_path": named,
                "best_k_models": {named: torch.tensor(9.0)},
                "kth_best_model_path": named,
                "last_model_path": named,
                "best_model_score": torch.tensor(9.0),
            }
            bad = {**spikes.state_dict(), "bad_batches_path": str(victim)}
            states = {keeping.state_key: state, spikes.state_key: bad}
            content = {**sound, "callbacks": states}
            path = tmp_path / "bad.ckpt"
            write(content, path)

            def enter(path: Path, parts: Any = (keeping, spikes)) -> None:
                trainer(*parts).fit(Net(), Rows(), ckpt_path=path)

            watched(enter, path)
            spikes._write(trainer(spikes))
            assert victim.read_text() == "precious"
            (tmp_path / "skip_batches.json").unlink(missing_ok=True)
