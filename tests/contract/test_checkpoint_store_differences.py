"""What becomes of files on bad disks and after kills, different on purpose, on both."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import Any

import pytest
from recording import OURS, REFERENCE, callbacks_of, data, quiet_trainer
from test_callbacks import build, sgd

BOTH = pytest.mark.parametrize("namespace", [OURS, REFERENCE])

pytestmark = pytest.mark.filterwarnings("ignore")


def module_of(namespace: str, **members: Any) -> Any:
    def validation_step(self: Any, batch: Any, batch_idx: int) -> None:
        self.log("score", [3.0, 2.0, 1.0, 4.0][self.trainer.current_epoch])

    return build(
        namespace, validation_step=validation_step, configure_optimizers=sgd, **members
    )


def fit(
    namespace: str,
    *callbacks: Any,
    module: Any = None,
    epochs: int = 2,
    ckpt_path: Any = None,
) -> Any:
    trainer = quiet_trainer(
        namespace,
        max_epochs=epochs,
        callbacks=list(callbacks),
        enable_checkpointing=True,
    )
    module = module_of(namespace) if module is None else module
    trainer.fit(module, data(12, 2), data(4), ckpt_path=ckpt_path)
    return trainer


def ranked(namespace: str, folder: Path) -> Any:
    return callbacks_of(namespace).ModelCheckpoint(
        folder, "{epoch}", monitor="score", save_last=True
    )


@BOTH
def test_list_of_checkpoints_beside_them(namespace: str, tmp_path: Path) -> None:
    fit(namespace, ranked(namespace, tmp_path))
    names = {path.name for path in tmp_path.iterdir()}
    assert names - {"manifest.json"} == {"epoch=1.ckpt", "last.ckpt"}
    assert ("manifest.json" in names) is (namespace == OURS)


@BOTH
def test_fit_whose_checkpoints_cannot_be_saved(namespace: str, tmp_path: Path) -> None:
    folder = tmp_path / "gone"

    def on_train_epoch_start(self: Any) -> None:
        if self.trainer.current_epoch == 1:
            shutil.rmtree(folder)
            folder.write_text("a file where the folder was")

    module = module_of(namespace, on_train_epoch_start=on_train_epoch_start)
    checkpoint = callbacks_of(namespace).ModelCheckpoint(folder)
    if namespace == REFERENCE:
        with pytest.raises(OSError, match="gone"):
            fit(namespace, checkpoint, module=module)
    else:
        trainer = fit(namespace, checkpoint, module=module)
        assert trainer.current_epoch == 2
        with pytest.raises(OSError, match="gone"):
            trainer.save_checkpoint(folder / "mine.ckpt")


@BOTH
@pytest.mark.parametrize("kind", ["CSVLogger", "TensorBoardLogger"])
def test_fit_whose_metrics_cannot_be_written(
    namespace: str, kind: str, tmp_path: Path
) -> None:
    """The folder of the logger goes away for a while, as a disk of the network may."""
    loggers = importlib.import_module(f"{namespace}.pytorch.loggers")
    logger = getattr(loggers, kind)(tmp_path, "", "run")

    def on_train_batch_start(self: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 2:
            (tmp_path / "run").rename(tmp_path / "away")
        if batch_idx == 4:
            logger.save()
            (tmp_path / "away").rename(tmp_path / "run")

    def on_train_batch_end(self: Any, *_: Any) -> None:
        self.log("number", float(self.global_step))
        self.trainer.logger.save()

    module = module_of(
        namespace,
        on_train_batch_start=on_train_batch_start,
        on_train_batch_end=on_train_batch_end,
    )
    trainer = quiet_trainer(namespace, max_epochs=1, logger=logger, log_every_n_steps=1)
    if namespace == REFERENCE:
        with pytest.raises((OSError, ValueError)):
            trainer.fit(module, data(12, 2), data(4))
    else:
        trainer.fit(module, data(12, 2), data(4))
        assert trainer.state.status == "finished"


@BOTH
def test_damaged_last_checkpoint(namespace: str, tmp_path: Path) -> None:
    fit(namespace, ranked(namespace, tmp_path))
    content = (tmp_path / "last.ckpt").read_bytes()
    (tmp_path / "last.ckpt").write_bytes(content[: len(content) // 2])
    again = ranked(namespace, tmp_path)
    if namespace == REFERENCE:
        with pytest.raises(RuntimeError, match="PytorchStreamReader"):
            fit(namespace, again, epochs=3, ckpt_path="last")
    else:
        trainer = fit(namespace, again, epochs=3, ckpt_path="last")
        assert trainer.ckpt_path == str(tmp_path / "epoch=1.ckpt")
        assert trainer.current_epoch == 3


@BOTH
def test_files_from_behind_the_point_of_resuming(
    namespace: str, tmp_path: Path
) -> None:
    folder = tmp_path / "c"
    fit(namespace, ranked(namespace, folder), epochs=1)
    early = shutil.copy2(folder / "last.ckpt", tmp_path / "early.ckpt")
    fit(namespace, ranked(namespace, folder), epochs=2, ckpt_path=early)
    # Resumed as after a kill, with a file that is older than the best one.
    fit(namespace, ranked(namespace, folder), epochs=3, ckpt_path=early)
    names = {path.name for path in folder.glob("*.ckpt")}
    left = {"epoch=1.ckpt", "epoch=1-v1.ckpt"} & names
    assert names - left == {"epoch=2.ckpt", "last.ckpt"}
    assert bool(left) is (namespace == REFERENCE)


@BOTH
def test_exception_before_the_first_batch(namespace: str, tmp_path: Path) -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> None:
        raise ZeroDivisionError

    def on_fit_start(self: Any) -> None:
        raise KeyError

    def keeping() -> Any:
        return callbacks_of(namespace).OnExceptionCheckpoint(tmp_path)

    path = tmp_path / "on_exception.ckpt"
    with pytest.raises(ZeroDivisionError):
        fit(
            namespace,
            keeping(),
            module=module_of(namespace, training_step=training_step),
        )
    before = path.read_bytes()
    module = module_of(namespace, on_fit_start=on_fit_start)
    with pytest.raises(KeyError):
        fit(namespace, keeping(), module=module, ckpt_path=path)
    assert (path.read_bytes() == before) is (namespace == OURS)
