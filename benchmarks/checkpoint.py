"""Checkpoints beside `torch.save`, Lightning's and `torch.distributed.checkpoint`.

    python benchmarks/checkpoint.py [--quick]

What is saved: a model of 100 million parameters with the state of Adam, 1.2 GB. Memory is
measured in a process of its own for each way.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
import torch.distributed.checkpoint as dcp
from torch import nn

import lightgen_runtime.io as ours
from choices import Comparison, show
from lightgen_runtime.io.schema import LIGHTNING_VERSION, VERSION_KEY
from paired import Spread, one_thread, paired

ROUNDS, ROUNDS_IF_QUICK = 5, 2
PARAMETERS, PARAMETERS_IF_QUICK = 100_000_000, 500_000
WIDTH, WIDTH_IF_QUICK = 2048, 256
BY_HAND = "`torch.save`"
OURS, OURS_ASYNC = "`TorchCheckpointIO`", "`AsyncCheckpointIO`"
OURS_FOLDER = "`DistributedCheckpointIO`"
OURS_ASYNC_FOLDER = "`AsyncCheckpointIO(DistributedCheckpointIO())`"

Save = Callable[[dict[str, Any], Path], Any]
# From an action to its seconds; what it started in the background is waited for, untimed.
Timed = Callable[[], float]


class Extra(NamedTuple):
    """Memory that saving took beside the state.

    Attributes:
        name: The way to save.
        copies: At the most, in sizes of the state.
    """

    name: str
    copies: float


def make_state(quick: bool) -> dict[str, Any]:
    """Return a checkpoint of square layers and of Adam after one step."""
    width = WIDTH_IF_QUICK if quick else WIDTH
    count = round((PARAMETERS_IF_QUICK if quick else PARAMETERS) / width**2)
    net = nn.Sequential(*(nn.Linear(width, width) for _ in range(count)))
    optimizer = torch.optim.Adam(net.parameters())
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 0.01)
    optimizer.step()
    optimizer.zero_grad()
    return {
        VERSION_KEY: LIGHTNING_VERSION,
        "state_dict": net.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
    }


def size_of(state: dict[str, Any]) -> int:
    """Return the bytes of all tensors."""
    tensors = list(state["state_dict"].values())
    for entry in state["optimizer_states"][0]["state"].values():
        tensors += entry.values()
    return sum(tensor.nbytes for tensor in tensors)


class Telling:
    """Mixed into a `CheckpointIO`: tells when it has written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = threading.Semaphore(0)

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        super().save_checkpoint(*args, **kwargs)  # type: ignore[misc]
        self.written.release()


class InThread:
    """An asynchronous `CheckpointIO` of either package, and how to wait for it."""

    def __init__(self, wrapper: type[Any], inner: type[Any]) -> None:
        self.inner: Any = type("Inner", (Telling, inner), {})()
        self.io = wrapper(self.inner)

    def save(self, state: dict[str, Any], path: Path) -> Callable[[], Any]:
        self.io.save_checkpoint(state, path)
        return self.inner.written.acquire


def dcp_save(state: dict[str, Any], path: Path) -> None:
    dcp.save(state, checkpoint_id=path)


def dcp_async(state: dict[str, Any], path: Path) -> Callable[[], Any]:
    result: Callable[[], Any] = dcp.async_save(state, checkpoint_id=path).result
    return result


def lightning_io() -> Any:
    from lightning.pytorch.plugins import io

    return io


def lightning_async() -> Save:
    theirs = lightning_io()
    return InThread(theirs.AsyncCheckpointIO, theirs.TorchCheckpointIO).save


# Ways to save while training goes on, beside `torch.save`; each is made when it is used.
IN_BACKGROUND: dict[str, Callable[[], Save]] = {
    BY_HAND: lambda: torch.save,
    OURS_ASYNC: lambda: (InThread(ours.AsyncCheckpointIO, ours.TorchCheckpointIO).save),
    OURS_ASYNC_FOLDER: lambda: (
        InThread(ours.AsyncCheckpointIO, ours.DistributedCheckpointIO).save
    ),
    "Lightning's `AsyncCheckpointIO`": lightning_async,
    "`dcp.async_save`": lambda: dcp_async,
}


def at_once() -> dict[str, Save]:
    """Return the ways to save that return when it is done."""
    save = ours.TorchCheckpointIO().save_checkpoint

    def lacking(*parts: Any) -> Save:
        def saved(state: dict[str, Any], path: Path) -> None:
            with contextlib.ExitStack() as stack:
                for part in parts:
                    stack.enter_context(part())
                save(state, path)

        return saved

    return {
        BY_HAND: torch.save,
        OURS: save,
        f"{OURS} without fsync": lacking(no_fsync),
        f"{OURS} without fsync and checksum": lacking(no_fsync, no_checksum),
        OURS_FOLDER: ours.DistributedCheckpointIO().save_checkpoint,
        "Lightning's `TorchCheckpointIO`": lightning_io()
        .TorchCheckpointIO()
        .save_checkpoint,
        "`dcp.save`": dcp_save,
    }


def no_fsync() -> Any:
    return mock.patch.object(os, "fsync", return_value=None)


def no_checksum() -> Any:
    return mock.patch.object(
        hashlib, "sha256", return_value=mock.MagicMock(**{"hexdigest.return_value": ""})
    )


def loaders(state: dict[str, Any], folder: Path) -> dict[str, Callable[[], Any]]:
    """Write what is to be read, and return the ways to read it."""
    file, own, parts = folder / "file.ckpt", folder / "own.ckpt", folder / "folder.ckpt"
    torch.save(state, file)
    ours.TorchCheckpointIO().save_checkpoint(state, own)
    ours.DistributedCheckpointIO().save_checkpoint(state, parts)
    return {
        "`torch.load`": partial(torch.load, file, weights_only=True),
        OURS: partial(ours.TorchCheckpointIO().load_checkpoint, own),
        OURS_FOLDER: partial(ours.DistributedCheckpointIO().load_checkpoint, parts),
        "Lightning's `TorchCheckpointIO`": partial(
            lightning_io().TorchCheckpointIO().load_checkpoint, file, weights_only=True
        ),
    }


def timed_save(save: Save, state: dict[str, Any], path: Path) -> float:
    """Return the seconds until training could go on, and leave nothing behind."""
    started = time.perf_counter()
    wait = save(state, path)
    taken = time.perf_counter() - started
    if wait is not None:
        wait()
    ours.DistributedCheckpointIO().remove_checkpoint(path)  # a file or a folder
    return taken


def timed_load(load: Callable[[], Any]) -> float:
    started = time.perf_counter()
    loaded = load()
    taken = time.perf_counter() - started
    del loaded
    return taken


def compared(title: str, ways: dict[str, Timed], rounds: int) -> Comparison:
    def in_ms(seconds: Spread) -> Spread:
        return Spread(*(1e3 * value for value in seconds))

    found = paired(ways, rounds)
    return Comparison(
        title, "ms", {name: (in_ms(t), ratio) for name, (t, ratio) in found.items()}
    )


@contextlib.contextmanager
def quietly() -> Iterator[Path]:
    """Yield a folder to write to; what the packages say meanwhile is not shown."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield Path(folder)
        finally:
            logging.disable(logging.NOTSET)


def measure(
    quick: bool, show: Callable[[Comparison], None] = lambda _: None
) -> list[Comparison]:
    """Compare saving in the background, saving at once, and loading.

    Args:
        quick: Few rounds, with a small model.
        show: Called with each comparison when it is there.
    """
    one_thread()
    rounds = ROUNDS_IF_QUICK if quick else ROUNDS
    found = []
    with quietly() as folder:
        state = make_state(quick)
        background = {name: make() for name, make in IN_BACKGROUND.items()}
        for title, saves in (
            ("save in the background: training waits", background),
            ("save at once", at_once()),
        ):
            ways = {
                name: partial(timed_save, save, state, folder / "x.ckpt")
                for name, save in saves.items()
            }
            found.append(compared(title, ways, rounds))
            show(found[-1])
        loads = {
            name: partial(timed_load, load)
            for name, load in loaders(state, folder).items()
        }
        found.append(compared("load", loads, rounds))
        show(found[-1])
    return found


def memory(quick: bool) -> list[Extra]:
    """Return what each way to save takes beside the state; nothing but on Linux."""
    names = IN_BACKGROUND if sys.platform == "linux" else ()
    return [Extra(name, memory_of(name, quick)) for name in names]


def memory_of(name: str, quick: bool) -> float:
    """Return the most memory that two saves took in a process of their own."""
    command = [sys.executable, __file__, "--memory", name, *["--quick"] * quick]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def copies_while_saving(name: str, quick: bool) -> float:
    """Save twice without a pause; return the peak beside the state, in sizes of it."""
    one_thread()
    with quietly() as folder:
        save = IN_BACKGROUND[name]()
        small = {"state_dict": {}, "optimizer_states": [{"state": {}}]}
        (save(small, folder / "small.ckpt") or bool)()  # imports and threads
        state = make_state(quick)
        Path("/proc/self/clear_refs").write_text(
            "5"
        )  # the peak is counted from here on
        before = peak()
        waits = [save(state, folder / f"{number}.ckpt") for number in range(2)]
        for wait in waits:
            (wait or bool)()
        return (peak() - before) / size_of(state)


def peak() -> int:
    """Return the most resident memory so far, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="a small model, two rounds"
    )
    parser.add_argument("--memory", metavar="NAME", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        print(copies_while_saving(options.memory, options.quick))
        return
    measure(options.quick, show)
    print("\nmemory beside the state, two saves without a pause")
    for extra in memory(options.quick):
        print(f"  {extra.name:<45} {extra.copies:.2f} times the state")


if __name__ == "__main__":
    main()
