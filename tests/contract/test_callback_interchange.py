"""The state of every callback that both packages have, carried from one to the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from recording import (
    OURS,
    REFERENCE,
    callbacks_of,
    data,
    memory_logger,
    quiet_trainer,
    small_module,
)
from torch.optim.lr_scheduler import StepLR

BOTH_WAYS = [(OURS, REFERENCE), (REFERENCE, OURS)]
EPOCHS, LAST = 4, 1  # epochs of a whole fit; the last, from 0, of one that is cut short

# Lightning goes on otherwise, by faults that docs/compat.md has in these rows.
FAULTS = {
    "BackboneFinetuning": "test_unfrozen_backbone_after_a_resume",
    "BaseFinetuning": "test_unfrozen_backbone_after_a_resume",
    "BatchSizeFinder": "test_resume_with_a_finder",
    "LearningRateFinder": "test_resume_with_a_finder",
    "ModelPruning": "test_masks_after_a_resume",
    "SpikeDetection": "test_resume_with_spike_detection",
}
# Values that a loaded state need not have.
OWN = {
    "bad_batches_path",  # a file does not decide what is overwritten
    "current_score",  # of the last save: neither package loads it
    "time_elapsed",  # goes on while it is looked at
}
LATER = {"n_averaged", "scheduler_state"}  # Lightning loads them when averaging goes on
EMPTY = {"running", "mean"}  # in Lightning's files: what its metrics do not keep

pytestmark = pytest.mark.filterwarnings("ignore")


# ---- callbacks ----


def own_callback(callbacks: Any, folder: Path) -> Any:
    class Own(callbacks.Callback):  # type: ignore[name-defined,misc]
        epochs = 0

        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            self.epochs += 1

        def state_dict(self) -> dict[str, Any]:
            return {"epochs": self.epochs, "sums": torch.ones(2) * self.epochs}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.epochs = state["epochs"]

        def on_save_checkpoint(self, trainer: Any, module: Any, file: Any) -> None:
            file["own"] = file["global_step"]

        def on_load_checkpoint(self, trainer: Any, module: Any, file: Any) -> None:
            assert file["own"] == file["global_step"]

    return Own()


def own_finetuning(callbacks: Any, folder: Path) -> Any:
    class Later(callbacks.BaseFinetuning):  # type: ignore[name-defined,misc]
        def freeze_before_training(self, module: Any) -> None:
            self.freeze(module.backbone)

        def finetune_function(self, module: Any, epoch: int, optimizer: Any) -> None:
            if epoch == 1:
                self.unfreeze_and_add_param_group(module.backbone, optimizer)

    return Later()


def own_writer(callbacks: Any, folder: Path) -> Any:
    return type("Writer", (callbacks.BasePredictionWriter,), {})("epoch")


def by_lambda(callbacks: Any, folder: Path) -> Any:
    def save(trainer: Any, module: Any, file: dict[str, Any]) -> None:
        file["of lambda"] = torch.ones(2)

    def load(trainer: Any, module: Any, file: dict[str, Any]) -> None:
        assert torch.equal(file["of lambda"], torch.ones(2))

    return callbacks.LambdaCallback(on_save_checkpoint=save, on_load_checkpoint=load)


MADE: dict[str, Callable[[Any, Path], Any]] = {
    "BackboneFinetuning": lambda c, _: c.BackboneFinetuning(1),
    "BaseFinetuning": own_finetuning,
    "BasePredictionWriter": own_writer,
    "BatchSizeFinder": lambda c, _: c.BatchSizeFinder("power", 1, 2, max_trials=1),
    "Callback": own_callback,
    "DeviceStatsMonitor": lambda c, _: c.DeviceStatsMonitor(),
    "EMAWeightAveraging": lambda c, _: c.EMAWeightAveraging(decay=0.5),
    "EarlyStopping": lambda c, _: c.EarlyStopping("loss", patience=9),
    "GradientAccumulationScheduler": lambda c, _: c.GradientAccumulationScheduler(
        {1: 2, 3: 4}
    ),
    "LambdaCallback": by_lambda,
    "LearningRateFinder": lambda c, _: c.LearningRateFinder(
        num_training_steps=4, early_stop_threshold=None
    ),
    "LearningRateMonitor": lambda c, _: c.LearningRateMonitor("step"),
    "ModelCheckpoint": lambda c, folder: c.ModelCheckpoint(
        folder / "own", monitor="loss", save_top_k=2, save_last=True
    ),
    "ModelPruning": lambda c, _: c.ModelPruning(
        "l1_unstructured", amount=0.3, use_lottery_ticket_hypothesis=False
    ),
    "ModelSummary": lambda c, _: c.ModelSummary(),
    "OnExceptionCheckpoint": lambda c, folder: c.OnExceptionCheckpoint(folder),
    "ProgressBar": lambda c, _: c.ProgressBar(),
    "RichModelSummary": lambda c, _: c.RichModelSummary(),
    "RichProgressBar": lambda c, _: c.RichProgressBar(),
    "SpikeDetection": lambda c, _: c.SpikeDetection(rtol=99.0),
    "StochasticWeightAveraging": lambda c, _: c.StochasticWeightAveraging(
        0.05, swa_epoch_start=2, annealing_epochs=2
    ),
    "TQDMProgressBar": lambda c, _: c.TQDMProgressBar(),
    "ThroughputMonitor": lambda c, _: c.ThroughputMonitor(len),
    "Timer": lambda c, _: c.Timer("00:01:00:00"),
    "WeightAveraging": lambda c, _: c.WeightAveraging(),
}
NOT_MADE = {"Checkpoint": "it does nothing but be the base of the others"}


def public(namespace: str) -> set[str]:
    found = callbacks_of(namespace)
    return {name for name in found.__all__ if isinstance(getattr(found, name), type)}


def test_no_callback_that_both_have_is_forgotten() -> None:
    assert public(OURS) & public(REFERENCE) == {*MADE, *NOT_MADE}


# ---- fits ----


def model(namespace: str) -> Any:
    class Model(small_module(namespace)):  # type: ignore[misc]
        lr, batch_size = 0.1, 2

        def __init__(self) -> None:
            super().__init__()
            self.backbone = torch.nn.Linear(4, 4)

        def train_dataloader(self) -> Any:
            return data(batch_size=self.batch_size)

        def val_dataloader(self) -> Any:
            return data(4)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = (self.layer(self.backbone(batch)) - 1).pow(2).mean()
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            trained = [p for p in self.parameters() if p.requires_grad]
            optimizer = torch.optim.SGD(trained, lr=self.lr, momentum=0.5)
            return [optimizer], [StepLR(optimizer, 1, 0.9)]

    return Model()


class CutShort(Exception):
    pass


class Fit:
    """A fit with one callback, to its end or to the end of epoch `LAST`."""

    def __init__(
        self,
        name: str,
        namespace: str,
        folder: Path,
        cut_short: bool = False,
        ckpt_path: Path | None = None,
    ) -> None:
        callbacks = callbacks_of(namespace)
        self.folder = folder
        self.callback = MADE[name](callbacks, folder)
        self.loaded: dict[str, Any] = {}
        self.trainer = quiet_trainer(
            namespace,
            callbacks=[
                self.callback,
                self.watcher(callbacks, cut_short),
                callbacks.ModelCheckpoint(folder / "saved", "x", save_top_k=1),
            ],
            enable_checkpointing=True,
            enable_progress_bar=isinstance(self.callback, callbacks.ProgressBar),
            enable_model_summary=isinstance(self.callback, callbacks.ModelSummary),
            logger=memory_logger(namespace),
            log_every_n_steps=1,
            max_epochs=EPOCHS,
            default_root_dir=folder,
        )
        self.module = model(namespace)
        with suppress(CutShort):
            self.trainer.fit(self.module, ckpt_path=ckpt_path)

    def watcher(self, callbacks: Any, cut_short: bool) -> Any:
        fit = self

        class Watcher(callbacks.Callback):  # type: ignore[name-defined,misc]
            def on_train_start(self, trainer: Any, module: Any) -> None:
                fit.loaded = fit.plain(fit.callback.state_dict())

            def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
                if cut_short and trainer.current_epoch == LAST:
                    trainer.should_stop = True
                    if isinstance(fit.callback, callbacks.OnExceptionCheckpoint):
                        raise CutShort

        return Watcher()

    @property
    def file(self) -> Path:
        """What the other package goes on from."""
        on_exception = self.folder / "on_exception.ckpt"
        return on_exception if on_exception.exists() else self.folder / "saved/x.ckpt"

    def plain(self, value: Any) -> Any:
        """Return a state as it is now, comparable, without the place of the folder."""
        if isinstance(value, Mapping):
            return {self.plain(key): self.plain(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.plain(each) for each in value]
        if isinstance(value, torch.Tensor):
            return value.tolist()
        return value.replace(str(self.folder), "") if isinstance(value, str) else value


def assert_same(one: dict[str, Any], other: dict[str, Any], but: set[str]) -> None:
    for key in (one.keys() & other.keys()) - but - OWN:
        assert one[key] == other[key], key


def state_in_file(fit: Fit) -> dict[str, Any]:
    content = torch.load(fit.file, weights_only=True)
    assert content["epoch"] == LAST
    states = content["callbacks"]
    has_state = bool(fit.callback.state_dict())
    assert (fit.callback.state_key in states) is has_state
    return fit.plain(states[fit.callback.state_key]) if has_state else {}


CASES = [
    (name, *way)
    for name in MADE
    for way in BOTH_WAYS
    # Lightning fails when it loads its own state, too.
    if (name, way[1]) != ("SpikeDetection", REFERENCE)
]


@pytest.mark.parametrize(("name", "writer", "reader"), CASES)
def test_callback_goes_on_in_the_other_package(
    name: str, writer: str, reader: str, tmp_path: Path
) -> None:
    first = Fit(name, writer, tmp_path / "run", cut_short=True)
    saved = state_in_file(first)
    # What has been pruned is a plain zero for whoever resumes.
    start = first.file if name == "ModelPruning" else None
    whole = Fit(name, writer, tmp_path / "whole", ckpt_path=start)
    resumed = Fit(name, reader, tmp_path / "run", ckpt_path=first.file)

    assert resumed.trainer.current_epoch == EPOCHS
    assert resumed.callback.state_key == first.callback.state_key
    states = {writer: saved, reader: resumed.loaded}
    assert states[OURS].keys() >= states[REFERENCE].keys() - EMPTY
    assert_same(saved, resumed.loaded, LATER if reader == REFERENCE else set())
    if reader == REFERENCE and name in FAULTS:
        return
    ends = [fit.plain(fit.callback.state_dict()) for fit in (whole, resumed)]
    assert_same(*ends, but=set())
    assert resumed.trainer.global_step == whole.trainer.global_step
    for key, weights in whole.module.state_dict().items():
        assert torch.equal(resumed.module.state_dict()[key], weights), key


@pytest.mark.parametrize(("writer", "reader"), BOTH_WAYS)
def test_time_of_training_counts_on(writer: str, reader: str, tmp_path: Path) -> None:
    first = Fit("Timer", writer, tmp_path, cut_short=True)
    saved = state_in_file(first)["time_elapsed"]
    resumed = Fit("Timer", reader, tmp_path, ckpt_path=first.file)
    loaded = resumed.loaded["time_elapsed"]
    assert saved.keys() == loaded.keys()
    assert 0 < saved["train"] <= loaded["train"]
