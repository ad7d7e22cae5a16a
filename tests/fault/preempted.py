"""Fits that real signals reach, each in a process of its own.

Run as a program it forks one child a case, which works in a folder of that name, and
prints how each ended. The children share one import of torch.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from threading import Timer
from typing import Any

import torch
import torch._dynamo  # which the first step of any optimizer imports
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightgen_runtime import Callback, LightningModule, Trainer, seed_everything
from lightgen_runtime.callbacks import Preemption
from lightgen_runtime.trainer import interruption, signals

BATCHES = 4  # an epoch
EPOCHS = 3


class Net(LightningModule):
    """Has dropout, momentum and a schedule: all that a careless resume loses."""

    def __init__(self, act: Callable[[str, int], None] = lambda *_: None) -> None:
        super().__init__()
        self.__dict__["act"] = act
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 1))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        self.act("training", self.trainer.fit_loop.total_batch_idx)
        loss: Tensor = self.net(batch[0]).pow(2).mean()
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        if not self.trainer.sanity_checking:
            self.act("validation", self.trainer.fit_loop.total_batch_idx)
        self.log("val_loss", self.net(batch[0]).pow(2).mean())

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)]


def send(number: int, where: str, batch: int, times: int = 1) -> Any:
    """Return what sends a signal to this process, once in its life."""
    left = [times]

    def act(here: str, at: int) -> None:
        while (here, at) == (where, batch) and left[0]:
            left[0] -= 1
            os.kill(os.getpid(), number)

    return act


def fit(
    act: Callable[[str, int], None] = lambda *_: None,
    ckpt_path: str | None = None,
    *,
    callbacks: list[Callback] | None = None,
    workers: int = 0,
    folder: str = ".",
    dataset: type[TensorDataset] = TensorDataset,
    kind: type[Net] = Net,
    **flags: Any,
) -> Net:
    """Train with checkpoints in `folder`; the same numbers whoever calls."""
    seed_everything(1, verbose=False)
    numbers = torch.randn(4 * BATCHES, 4)
    trainer = Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=callbacks,
        **flags,
    )
    rows = dataset(numbers)
    loader = DataLoader(rows, batch_size=4, shuffle=True, num_workers=workers)
    net = kind(act)
    validation = DataLoader(TensorDataset(numbers), batch_size=8, num_workers=workers)
    trainer.fit(net, loader, validation, ckpt_path=ckpt_path)
    return net


def interrupted(folder: str = "checkpoints") -> list[str]:
    return sorted(path.as_posix() for path in Path(folder).glob("interrupted-*"))


def interrupt(expected: int, act: Any, **options: Any) -> None:
    """Fit until the signal ends it, with the exit code that belongs to the signal."""
    code: object = None
    try:
        fit(act, **options)
    except KeyboardInterrupt:
        code = 130
    except SystemExit as stop:
        code = stop.code
    assert code == expected, code


def resumes(files: list[str], **options: Any) -> None:
    """Go on from the one file of an interruption; end as if there had been none."""
    assert interrupted() == files
    resumed = fit(ckpt_path=files[0], **options)
    assert interrupted() == [], "the file is still there after the fit has ended well"
    whole = fit(folder="whole")
    for one, other in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, other)


def saved_by(number: int, code: int) -> None:
    interrupt(code, send(number, "training", 5))
    resumes(["checkpoints/interrupted-step=6.ckpt"])


def sigterm() -> None:
    saved_by(signal.SIGTERM, 143)


def sigusr1() -> None:
    saved_by(signal.SIGUSR1, 128 + signal.SIGUSR1)


def sigint() -> None:
    saved_by(signal.SIGINT, 130)


def sigint_twice() -> None:
    interrupt(130, send(signal.SIGINT, "training", 5, times=2))
    assert interrupted() == []


def other_signal() -> None:
    interrupt(
        128 + signal.SIGUSR2,
        send(signal.SIGUSR2, "training", 2),
        callbacks=[Preemption(signals=["SIGUSR2"])],
    )
    resumes(["checkpoints/interrupted-step=3.ckpt"])


def in_validation() -> None:
    interrupt(143, send(signal.SIGTERM, "validation", 2 * BATCHES - 1))
    (file,) = interrupted()
    resumes([file])


def at_the_epochs_end() -> None:
    """Between the last batch of an epoch and the first of the next."""

    class Send(Callback):
        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            if trainer.current_epoch == 0:
                os.kill(os.getpid(), signal.SIGTERM)

    interrupt(143, lambda *_: None, callbacks=[Send()])
    resumes([f"checkpoints/interrupted-step={BATCHES + 1}.ckpt"])


def in_a_save() -> None:
    """While a checkpoint's file takes its name: it is whole, and the fit stops behind."""
    left = [1]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.rename" and left[0]:
            left[0] -= 1
            os.kill(os.getpid(), signal.SIGTERM)

    sys.addaudithook(hook)
    interrupt(143, lambda *_: None)
    torch.load(f"checkpoints/epoch=0-step={BATCHES}.ckpt", weights_only=True)
    resumes([f"checkpoints/interrupted-step={BATCHES + 1}.ckpt"])


def interrupted_again() -> None:
    """The second file replaces the first."""
    interrupt(143, send(signal.SIGTERM, "training", 1))
    (first,) = interrupted()
    interrupt(143, send(signal.SIGTERM, "training", 6), ckpt_path=first)
    resumes(["checkpoints/interrupted-step=7.ckpt"])


def last_means_it() -> None:
    interrupt(143, send(signal.SIGTERM, "training", 5))
    fit(ckpt_path="last")
    assert interrupted() == []


def sleep_at(batch: int) -> Any:
    ask = send(signal.SIGTERM, "training", batch)

    def act(where: str, at: int) -> None:
        ask(where, at)
        if (where, at) == ("training", batch):
            time.sleep(60)

    return act


def deadline() -> None:
    """A batch that does not end: stop in it, without a file."""
    interrupt(143, sleep_at(5), callbacks=[Preemption(deadline_s=0.2)])
    assert interrupted() == []


def stubborn() -> None:
    """A batch that even swallows the exception: the process ends all the same."""
    signals._GRACE_S = 0.2
    sleep = sleep_at(2)

    def act(where: str, at: int) -> None:
        while True:
            try:
                return sleep(where, at)
            except BaseException:
                time.sleep(0)

    def forever(where: str, at: int) -> None:
        while at == 2:
            act(where, at)

    fit(forever, callbacks=[Preemption(deadline_s=0.2)])


def nothing_kept() -> None:
    """Without checkpoints there is no file, and Ctrl-C ends at once."""
    for flags in ({"enable_checkpointing": False}, {"fast_dev_run": 3}):
        interrupt(143, send(signal.SIGTERM, "training", 1), **flags)
        interrupt(130, send(signal.SIGINT, "training", 1), **flags)
    assert not Path("checkpoints").exists()


def all_processes_of_the_job() -> None:
    """What a terminal or a cluster sends reaches the loader's workers, too."""
    os.setpgrp()

    def act(where: str, at: int) -> None:
        if (where, at) == ("validation", BATCHES - 1) and not interrupted():
            os.killpg(os.getpgrp(), signal.SIGUSR1)
            time.sleep(0.1)

    interrupt(128 + signal.SIGUSR1, act, workers=1)
    resumes([f"checkpoints/interrupted-step={BATCHES}.ckpt"])


def all_processes_while_a_batch_is_loaded() -> None:
    """The worker dies, and the batch never comes: stop before it."""
    os.setpgrp()
    torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = 0.2
    parent = os.getpid()

    class Rows(TensorDataset):
        def __getitem__(self, index: int) -> Any:
            drawn[0] += 1
            if drawn[0] == 4 * 2 + 1 and os.getpid() != parent:
                time.sleep(0.3)  # until there is nothing but this to wait for
                os.killpg(os.getpgrp(), signal.SIGTERM)
                time.sleep(60)
            return super().__getitem__(index)

    drawn = [0]
    interrupt(143, lambda *_: None, workers=1, dataset=Rows)
    resumes(["checkpoints/interrupted-step=2.ckpt"])


def stop_all(where: str, batch: int) -> Any:
    """Return what sends SIGTERM to the workers too, and gives them time to die."""
    os.setpgrp()

    def act(here: str, at: int) -> None:
        if (here, at) == (where, batch) and not interrupted():
            os.killpg(os.getpgrp(), signal.SIGTERM)
            end = time.monotonic() + 0.5
            while time.monotonic() < end:
                time.sleep(0.01)

    return act


def all_processes_behind_the_optimizers_step() -> None:
    """The worker's death must not end the batch between weights and counters."""

    class Stepping(Net):
        def optimizer_step(self, *args: Any) -> None:
            super().optimizer_step(*args)
            self.act("stepped", self.trainer.fit_loop.total_batch_idx)

    interrupt(143, stop_all("stepped", 5), workers=1, kind=Stepping)
    resumes(["checkpoints/interrupted-step=6.ckpt"])


def all_processes_in_validation() -> None:
    interrupt(143, stop_all("validation", BATCHES - 1), workers=1)
    resumes([f"checkpoints/interrupted-step={BATCHES}.ckpt"])


def worker_lost_inside_a_batch() -> None:
    """An error between weights and counters: end as asked, and save nothing."""

    def act(where: str, at: int) -> None:
        if (where, at) == ("training", 5):
            os.kill(os.getpid(), signal.SIGTERM)
            raise RuntimeError("DataLoader worker (pid 1) is killed by signal")

    interrupt(143, act)
    assert interrupted() == []


def forked_process_is_signalled() -> None:
    """What inherits the handlers does not wake the fit that it comes from."""

    def act(where: str, at: int) -> None:
        if (where, at) == ("training", 2):
            if (pid := os.fork()) == 0:
                signal.raise_signal(signal.SIGUSR1)
                os._exit(0)
            os.waitpid(pid, 0)
            time.sleep(0.1)

    fit(act)
    assert interrupted() == []


def deadline_outside_of_python() -> None:
    """A call that no handler interrupts, as a hung collective is."""
    signals._GRACE_S = 0.2
    library, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)

    def act(where: str, at: int) -> None:
        if (where, at) == ("training", 2):
            Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
            library.pthread_mutex_lock(mutex)
            library.pthread_mutex_lock(mutex)

    fit(act, callbacks=[Preemption(deadline_s=0.2)])


def slurm() -> None:
    """A job that is warned saves, goes back into the queue, and goes on by itself."""
    Path("scontrol").write_text('#!/bin/sh\necho "$@" >> calls\n')
    Path("scontrol").chmod(0o755)
    os.environ |= {"SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "train"}
    os.environ["PATH"] = f".{os.pathsep}{os.environ['PATH']}"
    interrupt(128 + signal.SIGUSR1, send(signal.SIGUSR1, "training", 5))
    assert Path("calls").read_text() == "requeue 77\n"
    assert Path("hpc_ckpt_77.ckpt").is_file()
    os.environ["SLURM_RESTART_COUNT"] = "1"
    interruption._fits.clear()  # as in another process
    interrupt(143, send(signal.SIGTERM, "training", 7))
    assert (
        Path("calls").read_text() == "requeue 77\n"
    ), "the cluster does it after SIGTERM"
    interruption._fits.clear()
    resumed = fit()
    assert not Path("hpc_ckpt_77.ckpt").exists()
    whole = fit(folder="whole")
    assert torch.equal(resumed.net[0].weight, whole.net[0].weight)

    os.environ |= {"SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": "7"}
    interrupt(128 + signal.SIGUSR1, send(signal.SIGUSR1, "training", 5))
    assert Path("calls").read_text() == "requeue 77\nrequeue 70_7\n"
    os.environ["SLURM_JOB_NAME"] = "interactive"
    interrupt(128 + signal.SIGUSR1, send(signal.SIGUSR1, "training", 5))
    assert interrupted() == ["checkpoints/interrupted-step=6.ckpt"]


CASES = (
    sigterm,
    sigusr1,
    sigint,
    sigint_twice,
    other_signal,
    in_validation,
    at_the_epochs_end,
    in_a_save,
    interrupted_again,
    last_means_it,
    deadline,
    stubborn,
    nothing_kept,
    all_processes_of_the_job,
    all_processes_while_a_batch_is_loaded,
    all_processes_behind_the_optimizers_step,
    all_processes_in_validation,
    worker_lost_inside_a_batch,
    forked_process_is_signalled,
    deadline_outside_of_python,
    slurm,
)


def _run(case: Callable[[], None]) -> int:
    """Run a case in a forked child; return how that ended."""
    pid = os.fork()
    if pid == 0:
        Path(case.__name__).mkdir()
        os.chdir(case.__name__)
        output = os.open("output", os.O_WRONLY | os.O_CREAT)
        os.dup2(output, 1)
        os.dup2(output, 2)
        try:
            case()
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(70)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    sys.stdout.write(json.dumps({case.__name__: _run(case) for case in CASES}))
