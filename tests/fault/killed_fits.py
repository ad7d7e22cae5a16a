"""Kills a fit, lets another process go on from its newest checkpoint, and compares.

A child is forked for each fit, from a process that has trained already: what a first fit
imports takes longer than a fit does.
"""

from __future__ import annotations

import logging
import os
import random
import re
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from resuming import Manual, Model, Noisy, assert_equal
from torch.utils.data import DataLoader

from lightgen_runtime import Trainer, seed_everything
from lightgen_runtime.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightgen_runtime.loggers import CSVLogger

BATCHES, EPOCHS = 4, 2
KINDS: dict[str, tuple[type[Model], dict[str, Any]]] = {
    "automatic": (Model, {}),
    "accumulating": (Model, {"accumulate_grad_batches": 2}),
    "manual": (Manual, {"every": 4}),
    "workers": (Model, {"workers": 2, "every": 2}),
    "validation": (Model, {"val_check_interval": 2, "every": 2}),
}
PLACES = ("after the batch", "in the step", "in validation")


class Kill(Callback):
    """Ends the process in one of the `PLACES`, at or behind one of the batches."""

    def __init__(self, at: int, place: str) -> None:
        self.at, self.place, self.batches = at, place, 0

    def die_if(self, place: str) -> None:
        if self.place == place and self.batches >= self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_start(self, trainer: Any, pl_module: Model) -> None:
        def forward(net: torch.nn.Module, *_: Any) -> None:
            if net.training:
                self.die_if("in the step")

        pl_module.net.register_forward_hook(forward)

    def on_train_batch_end(self, *_: Any) -> None:
        self.die_if("after the batch")
        self.batches += 1

    def on_validation_batch_end(self, trainer: Any, *_: Any) -> None:
        if not trainer.sanity_checking:
            self.die_if("in validation")


def fit(kind: str, folder: Path, kill: Kill | None = None) -> dict[str, Any]:
    """Train from the newest checkpoint in a folder, if one is there; return the end."""
    module_class, flags = KINDS[kind]
    flags = dict(flags)
    workers, every = flags.pop("workers", 0), flags.pop("every", 1)
    seed_everything(7, verbose=False)
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    callbacks = [
        EarlyStopping("val_loss", patience=50),
        ModelCheckpoint("kept", every_n_train_steps=every, save_last=True),
    ]
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        log_every_n_steps=2,
        logger=CSVLogger(".", name="", version="log"),
        callbacks=callbacks + ([] if kill is None else [kill]),
        enable_progress_bar=False,
        enable_model_summary=False,
        **flags,
    )
    loader = DataLoader(Noisy(2 * BATCHES), 2, shuffle=True, num_workers=workers)
    validated = DataLoader(Noisy(4), batch_size=2)
    trainer.fit(module_class(), loader, validated, ckpt_path="last")
    return {
        "weights": trainer.lightning_module.state_dict(),
        "optimizers": [o.state_dict() for o in trainer.optimizers],
        "schedulers": [c.scheduler.state_dict() for c in trainer.lr_scheduler_configs],
        "callbacks": [callback.state_dict() for callback in callbacks],
        "progress": trainer.progress.state_dict(),
        "rows": Path("log/metrics.csv").read_text().splitlines(),
    }


def forked(act: Callable[[], object]) -> int:
    """Start a process that does one thing; return its id."""
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        try:
            act()
        except BaseException:
            traceback.print_exc()
            os._exit(70)
        os._exit(0)
    return pid


def exit_code(pid: int) -> int:
    """Wait for a process that `forked` has started, and end what it leaves behind."""
    status = os.waitpid(pid, 0)[1]
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # workers of a loader
    return os.waitstatus_to_exitcode(status)


def relative(value: Any, folder: Path) -> Any:
    """Return a state without the folder in its paths.

    Nor the number by which a file is told from one that a killed fit has left.
    """
    if isinstance(value, dict):
        return {relative(k, folder): relative(v, folder) for k, v in value.items()}
    if isinstance(value, list):
        return [relative(entry, folder) for entry in value]
    if isinstance(value, str):
        return re.sub(r"-v\d+\.ckpt$", ".ckpt", value.replace(str(folder), ""))
    return value


class Judge:
    """Compares what fits of a kind end with to the end of one that nobody killed."""

    def __init__(self, kind: str, work: Path) -> None:
        self.kind, self.work = kind, work
        folder = work / "whole"

        def keep() -> None:
            torch.save(relative(fit(kind, folder), folder), work / "whole.pt")

        started = time.monotonic()
        assert exit_code(forked(keep)) == 0
        self.seconds = time.monotonic() - started
        self.whole = torch.load(work / "whole.pt", weights_only=False)

    def check(self, folder: Path) -> None:
        """Go on to the end in a process, and compare there."""

        def compare() -> None:
            ended = relative(fit(self.kind, folder), folder)
            assert_equal(ended, self.whole, f"{self.kind}, {folder.name}")

        if exit_code(forked(compare)) != 0:
            raise SystemExit(f"{self.kind}: {folder.name} does not go on exactly")


def kill_at_every_batch(kind: str, work: Path) -> int:
    """Kill at each batch, at places that take turns; return how many were killed."""
    judge, killed = Judge(kind, work), 0
    for at in range(BATCHES * EPOCHS):
        place = PLACES[(at + len(kind)) % len(PLACES)]
        folder = work / f"batch {at} {place}"
        code = exit_code(forked(partial(fit, kind, folder, Kill(at, place))))
        assert code in (0, -signal.SIGKILL), code
        killed += code != 0
        judge.check(folder)
    return killed


def kill_at_any_moment(kind: str, work: Path, times: int, seed: int) -> int:
    """Kill from outside, each run several times; return how many were killed."""
    judge, killed, runs = Judge(kind, work), 0, 0
    draw = random.Random(seed)
    while killed < times:
        runs += 1
        folder = work / f"run {runs}"
        for _ in range(draw.randint(1, 3)):
            pid = forked(partial(fit, kind, folder))
            time.sleep(draw.uniform(0, judge.seconds))
            os.kill(pid, signal.SIGKILL)
            killed += exit_code(pid) != 0
        judge.check(folder)
    return killed


def main() -> None:
    """Run from the command line: work folder, kind, number of kills from outside."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    work, times = Path(sys.argv[1]), int(sys.argv[2])
    fit("automatic", work / "warm")
    for kind in KINDS:
        (work / kind).mkdir()
        if times:
            killed = kill_at_any_moment(kind, work / kind, times // len(KINDS), times)
        else:
            killed = kill_at_every_batch(kind, work / kind)
        sys.stdout.write(f"{kind}: {killed}\n")


if __name__ == "__main__":
    main()
