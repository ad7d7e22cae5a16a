"""Metrics, stopping, checkpoints: what all processes hold for true."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import Any
from unittest import mock

import torch
import torchmetrics
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader
from trial_net import Net, case, digest, numbered, quiet

import lightgen_runtime as L
from lightgen_runtime.callbacks import (
    Callback,
    Checkpoint,
    EarlyStopping,
    LearningRateFinder,
    ModelCheckpoint,
)
from lightgen_runtime.loggers import CSVLogger
from lightgen_runtime.plugins.io import (
    AsyncCheckpointIO,
    DistributedCheckpointIO,
    TorchCheckpointIO,
)
from lightgen_runtime.utilities.exceptions import (
    CheckpointNotFoundError,
    CheckpointWriteError,
    MisconfigurationException,
)


class Logging(Net):
    """Logs in every way; batches have different sizes."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        value = batch[1].double().mean()
        self.log("plain", value, on_step=False, on_epoch=True)
        self.log("both", value, on_step=True, on_epoch=True, sync_dist=True)
        self.log("own_step", value, on_step=True)
        return loss

    def validation_step(
        self, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        value = batch[1].double().mean()
        self.log("val", value)  # no sync_dist: the guide promises it like that
        self.log("val_sum", value, reduce_fx="sum", sync_dist=True)
        self.log("mine", float(self.global_rank), rank_zero_only=True, batch_size=1)

    def on_train_epoch_end(self) -> None:
        self.log("at_end", float(self.global_rank))
        if self.global_rank == 0:
            self.log("first_only", 7.0)

    def on_validation_epoch_end(self) -> None:
        self.log("val_end", float(self.global_rank), sync_dist=True)


class Watching(Callback):
    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self.at_epoch_end: dict[str, float] = {}

    def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
        self.steps.append(floats(trainer.callback_metrics))

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.at_epoch_end = floats(trainer.callback_metrics)


def floats(metrics: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}


@case
def metrics(world: int) -> Any:
    watching = Watching()
    trainer = quiet(world, callbacks=[watching], log_every_n_steps=2)
    module = Logging()
    # 11 of 2, 1: processes see different numbers of validation samples and batches.
    loaders = [DataLoader(numbered(11), 2), DataLoader(numbered(1), 1)]
    trainer.fit(module, DataLoader(numbered(8 * world), 2), loaders)
    final = floats(trainer.callback_metrics)
    return {
        "final": final,
        "at_epoch_end": watching.at_epoch_end,
        "steps": watching.steps,
        "seen": module.seen,
    }


_COLLECTIVES = (
    *("all_reduce", "reduce", "reduce_scatter", "reduce_scatter_tensor"),
    *("all_gather", "all_gather_into_tensor", "all_gather_object"),
    *("gather", "gather_object", "scatter", "scatter_object_list"),
    *("broadcast", "broadcast_object_list", "all_to_all", "all_to_all_single"),
    *("barrier", "monitored_barrier"),
)


@contextmanager
def collectives_noted(found: list[str]) -> Iterator[None]:
    """Note each collective of ours by its name; DDP's own are made below torch's."""

    def noted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            found.append(name)
            return function(*args, **kwargs)

        return call

    module = torch.distributed
    wrapped = {name: noted(name, getattr(module, name)) for name in _COLLECTIVES}
    with mock.patch.multiple(module, **wrapped):
        yield


class Noting(Net):
    """Notes its steps and epochs among the collectives, and logs as it is told."""

    def __init__(self, found: list[str], hooks: tuple[str, ...]) -> None:
        super().__init__()
        self.found, self.hooks = found, hooks

    def on_train_epoch_start(self) -> None:
        self.found.append("epoch")

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.found.append("step")
        if "step" in self.hooks:
            self.log("loss", 1.0, on_step=True, on_epoch=True, sync_dist=True)
        return super().training_step(batch, batch_idx)

    def on_train_epoch_end(self) -> None:
        if "end" in self.hooks and self.global_rank == 0:
            self.log("end", 1.0)

    def on_train_end(self) -> None:
        self.found.append("end")


@case
def collectives_of_a_fit(world: int) -> Any:
    epochs = {}
    for hooks in ((), ("step",), ("step", "end")):
        found: list[str] = []
        data = DataLoader(numbered(6 * world), 2, shuffle=True)
        with collectives_noted(found):
            quiet(world, max_epochs=3).fit(Noting(found, hooks), data)
        inside = found[found.index("epoch") : found.index("end")]
        epochs["+".join(hooks)] = " ".join(inside).split("epoch")[1:]
    return {name: [each.split() for each in found] for name, found in epochs.items()}


class LogsLast(Checkpoint):
    """Runs behind the others, with the checkpoint callbacks."""

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        pl_module.log("last", float(trainer.global_rank))


@case
def logged_by_a_checkpoint_callback(world: int) -> Any:
    trainer = quiet(world, callbacks=[LogsLast()], enable_checkpointing=True)
    trainer.fit(Net(), DataLoader(numbered(8), 2))
    return float(trainer.callback_metrics["last"])


class Grouped(Net):
    """Logs for the group of the first two processes, and for each one by itself."""

    def setup(self, stage: str) -> None:
        ranks = range(self.trainer.world_size)
        self.pair = torch.distributed.new_group([0, 1])
        own = [torch.distributed.new_group([rank]) for rank in ranks]
        self.own = own[self.global_rank]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        rank = float(self.global_rank)
        if rank == 0 or (rank == 1 and batch_idx > 1):
            self.log(
                "pair", rank, on_epoch=True, sync_dist=True, sync_dist_group=self.pair
            )
        self.log("own", rank, sync_dist=True, sync_dist_group=self.own)
        return super().training_step(batch, batch_idx)

    def on_train_epoch_end(self) -> None:
        if self.global_rank == 1:
            self.log("end", 5.0, sync_dist=True, sync_dist_group=self.pair)
        elif self.global_rank == 2:  # which is not in the group
            self.log("end", 7.0, sync_dist=True, sync_dist_group=self.pair)


@case
def metrics_of_groups(world: int) -> Any:
    if world < 3:
        return None
    trainer = quiet(world, max_epochs=2, log_every_n_steps=2)
    trainer.fit(Grouped(), DataLoader(numbered(8 * world), 2))
    return floats(trainer.callback_metrics)


class Torn(Net):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("shared", 1.0, sync_dist=True)
        self.log(f"only_{self.global_rank}", 1.0, sync_dist=True)


@case
def keys_that_differ(world: int) -> Any:
    try:
        quiet(world).validate(Torn(), DataLoader(numbered(8), 2), verbose=False)
    except MisconfigurationException as error:
        return str(error)
    return None


class Objects(Net):
    def __init__(self) -> None:
        super().__init__()
        self.mean = torchmetrics.MeanMetric()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.mean.update(batch[1].double())
        self.log("object", self.mean)


@case
def metric_objects(world: int) -> Any:
    found = []
    for count in (1, 7):  # one leaves processes without a sample
        [values] = quiet(world).validate(
            Objects(), DataLoader(numbered(count), 2), verbose=False
        )
        found.append(values)
    return found


class Stopping(Callback):
    """One process alone asks to stop, in mid-epoch."""

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_rank == trainer.world_size - 1 and batch_idx == 1:
            trainer.should_stop = True


class Worse(Net):
    """The monitored value is a matter of each process; the last one's gets worse."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        last = self.global_rank == self.trainer.world_size - 1
        value = float(self.current_epoch) if last else -float(self.current_epoch)
        self.log("score", value, rank_zero_only=True)


@case
def stopping(world: int) -> Any:
    found = {}
    data = numbered(20 * world)
    for every in (4, 100):
        trainer = quiet(world, callbacks=[Stopping()], log_every_n_steps=every)
        trainer.fit(Net(), DataLoader(data, 2))
        found[f"asked/{every}"] = [trainer.global_step, trainer.should_stop]
    stopper = EarlyStopping("score", patience=2)
    trainer = quiet(world, callbacks=[stopper], max_epochs=9)
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    logging.getLogger("lightgen_runtime").addHandler(handler)
    trainer.fit(Worse(), DataLoader(data, 20), DataLoader(data, 20))
    logging.getLogger("lightgen_runtime").removeHandler(handler)
    found["told"] = said.getvalue().count("did not improve")
    found["early"] = [trainer.current_epoch, stopper.stopping_reason.name]
    return found


class Scored(Net):
    """Each process prefers another epoch."""

    def on_train_epoch_end(self) -> None:
        rank = self.global_rank
        self.log("score", abs(self.current_epoch - 1.0 - rank), rank_zero_only=True)


@case
def checkpoints(world: int) -> Any:
    L.seed_everything(5, verbose=False)
    saver = ModelCheckpoint(monitor="score", save_top_k=2, save_last=True)
    trainer = quiet(
        world, max_epochs=4, logger=True, enable_checkpointing=True, callbacks=[saver]
    )
    trainer.fit(Scored(), DataLoader(numbered(8), 2))
    folder = Path(saver.dirpath or "")
    return {
        "log_dir": trainer.log_dir,
        "version": trainer.logger.version if trainer.logger else None,
        "folder": str(folder),
        "best": saver.best_model_path,
        "kept": sorted(Path(path).name for path in saver.best_k_models),
        "files": sorted(path.name for path in folder.glob("*.ckpt")),
        "others": sorted(p.name for p in folder.parent.parent.iterdir()),
    }


class Noisy(Net):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step((batch[0] + torch.randn(4), batch[1]), batch_idx)
        self.log("loss", loss, on_epoch=True)
        return loss


@case
def resuming(world: int) -> Any:
    """A fit in two parts against one in one, with random numbers of each process's own."""
    found = {}
    for name, flags in {
        "epoch": {"every_n_epochs": 1},
        "middle": {"every_n_train_steps": 3},
    }.items():
        whole, first, second = Noisy(), Noisy(), Noisy()
        shared = DataLoader(numbered(8 * world), 2, shuffle=True)

        def run(module: Net, epochs: int, **more: Any) -> ModelCheckpoint:
            L.seed_everything(6, verbose=False)
            saver = ModelCheckpoint(f"resume_{world}_{name}", save_top_k=-1, **flags)  # type: ignore[arg-type]  # noqa: B023
            trainer = quiet(
                world, max_epochs=epochs, enable_checkpointing=True, callbacks=[saver]
            )
            torch.rand(trainer.global_rank)  # generators that are each process's own
            trainer.fit(module, shared, **more)  # noqa: B023
            return saver

        run(whole, 3)
        saver = run(first, 3)
        path = sorted(Path(saver.dirpath or "").glob("*.ckpt"))[0]
        run(second, 3, ckpt_path=path)
        found[name] = [digest(whole), digest(second), str(path.resolve())]
    return found


class Validated(Noisy):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("noise", torch.rand(()), sync_dist=True)


class SavesInside(Checkpoint):
    """Saves behind the second batch of the first validation."""

    def __init__(self, path: str) -> None:
        self.path, self.batches = path, 0

    def on_validation_batch_end(self, trainer: Any, *_: Any) -> None:
        self.batches += not trainer.sanity_checking
        if self.batches == 2:
            trainer.save_checkpoint(self.path)


@case
def resuming_inside_a_validation(world: int) -> Any:
    path, ends = f"inside_{world}.ckpt", []
    for ckpt_path in (None, path):
        L.seed_everything(6, verbose=False)
        saver = SavesInside(path)
        saver.batches = 2 if ckpt_path else 0
        trainer = quiet(
            world, max_epochs=2, enable_checkpointing=True, callbacks=[saver]
        )
        torch.rand(trainer.global_rank)
        module = Validated()
        loaders = [
            DataLoader(numbered(8 * world), 2, shuffle=on) for on in (True, False)
        ]
        trainer.fit(module, *loaders, ckpt_path=ckpt_path)
        ends.append([digest(module), float(trainer.callback_metrics["noise"])])
    return ends


class Searched(Net):
    def __init__(self) -> None:
        super().__init__()
        self.lr = 0.001

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


@case
def learning_rate_search(world: int) -> Any:
    module = Searched()
    finder = LearningRateFinder(num_training_steps=20, max_lr=0.5)
    data = DataLoader(numbered(50 * world), 2, shuffle=True)
    quiet(world, callbacks=[finder]).fit(module, data)
    return {"lr": module.lr, "weights": digest(module)}


class Slow(TorchCheckpointIO):
    """A disk that takes its time."""

    def save_checkpoint(
        self, checkpoint: Any, path: Any, storage_options: Any = None
    ) -> None:
        sleep(0.5)
        super().save_checkpoint(checkpoint, path)


@case
def last_that_a_thread_wrote(world: int) -> Any:
    """Asked for as soon as the fit is over, while rank 0 may still be writing."""
    saver = ModelCheckpoint(f"thread_{world}", save_last=True)
    trainer = quiet(
        world,
        enable_checkpointing=True,
        callbacks=[saver],
        plugins=AsyncCheckpointIO(Slow()),
    )
    data = DataLoader(numbered(8), 2)
    trainer.fit(Net(), data)
    trainer.max_epochs = 2
    trainer.fit(Net(), data, ckpt_path="last")
    return trainer.ckpt_path is not None


class Full(TorchCheckpointIO):
    """A disk that is full in the first epoch, and for the user."""

    def save_checkpoint(
        self, checkpoint: Any, path: Any, storage_options: Any = None
    ) -> None:
        if checkpoint["epoch"] == 0 or Path(path).name == "mine.ckpt":
            raise OSError(28, "No space left on device")
        super().save_checkpoint(checkpoint, path)


@case
def saves_that_fail(world: int) -> Any:
    """Where only rank 0 sees the error."""
    return _saves_that_fail(world, f"full_{world}", Full())


@case
def saves_that_fail_in_a_thread(world: int) -> Any:
    """Where only rank 0 has the thread."""
    return _saves_that_fail(world, f"full_beside_{world}", AsyncCheckpointIO(Full()))


def _saves_that_fail(world: int, folder: str, plugin: Any) -> Any:
    saver = ModelCheckpoint(folder, save_last=True)
    trainer = quiet(
        world,
        max_epochs=2,
        enable_checkpointing=True,
        callbacks=[saver],
        plugins=plugin,
    )
    trainer.fit(Net(), DataLoader(numbered(8), 2))
    try:
        trainer.save_checkpoint(f"{folder}/mine.ckpt")
        raised = False
    except CheckpointWriteError:
        raised = True
    return {
        "failed": len(saver._failed_saves),
        "best": Path(saver.best_model_path).name,
        "last": Path(saver.last_model_path).name,
        "files": sorted(path.name for path in Path(folder).glob("*.ckpt")),
        "raised": raised,
    }


@case
def words_that_rank_zero_understands(world: int) -> Any:
    """Each process has a folder of its own, and only the first one's has files."""
    rank = quiet(world).global_rank
    folder = Path(f"view_{world}")
    saver = ModelCheckpoint(folder, save_last=True)
    trainer = quiet(
        world,
        enable_checkpointing=True,
        default_root_dir=str(folder),
        callbacks=[saver],
    )
    trainer.fit(Net(), DataLoader(numbered(8), 2))
    saver.last_model_path = saver.best_model_path = ""
    found = {}
    for word in ("last", "best", "hpc"):
        again = ModelCheckpoint(folder if rank == 0 else f"none_{rank}", save_last=True)
        other = quiet(world, enable_checkpointing=True, callbacks=[again], max_epochs=2)
        try:
            other.fit(Net(), DataLoader(numbered(8), 2), ckpt_path=word)
            found[word] = Path(str(other.ckpt_path)).name
        except CheckpointNotFoundError as error:
            found[word] = type(error).__name__
    return found


@case
def folders_that_all_write(world: int) -> Any:
    """A fit in two parts, by a folder that threads of all processes have written."""
    data = DataLoader(numbered(8 * world), 2, shuffle=True)

    def run(epochs: int, **more: Any) -> Net:
        L.seed_everything(6, verbose=False)
        module = Net()
        trainer = quiet(
            world,
            max_epochs=epochs,
            enable_checkpointing=True,
            callbacks=[ModelCheckpoint(f"folders_{world}", save_last=True)],
            plugins=AsyncCheckpointIO(DistributedCheckpointIO()),
        )
        trainer.fit(module, data, **more)
        return module

    run(1)
    resumed = digest(run(2, ckpt_path="last"))
    names = sorted(path.name for path in Path(f"folders_{world}").iterdir())
    return [resumed == digest(run(2)), names]


@case
def loggers_of_rank_zero_only(world: int) -> Any:
    logger = CSVLogger("only") if quiet(world).global_rank == 0 else False
    trainer = quiet(world, logger=logger)
    trainer.fit(Net(), DataLoader(numbered(8), 2))
    return trainer.global_step > 0


class Parting(Net):
    """Logs what stays in process 0 and falls in the others, and so falls on average."""

    def __init__(self, interval: str) -> None:
        super().__init__()
        self.interval = interval

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.log("value", -float(self.global_rank * self.global_step), sync_dist=True)
        return super().training_step(batch, batch_idx)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.01)
        plateau = ReduceLROnPlateau(optimizer, patience=0)
        when = {"scheduler": plateau, "interval": self.interval, "monitor": "value"}
        return {"optimizer": optimizer, "lr_scheduler": when}


@case
def rates_of_plateaus(world: int) -> Any:
    found = {}
    for interval in ("epoch", "step"):
        trainer, module = quiet(world, max_epochs=3), Parting(interval)
        trainer.fit(module, DataLoader(numbered(4 * world), 2))
        found[interval] = trainer.optimizers[0].param_groups[0]["lr"]
    return found
