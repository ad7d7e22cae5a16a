"""Programs in two processes, in which one goes wrong.

`python faulty.py CASE RANK` is one of them. `python faulty.py` runs all, each with
either rank, in processes that are forked when everything has been imported; they are told
who they are as by torchrun. What they say goes to files, what becomes of them to
`ends.json`.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader
from trial_net import Net, numbered, quiet

CASES: dict[str, type[Net]] = {}
FAULTY = 1
# Cases in which it matters who goes wrong: rank 0 compares what the others tell.
ALSO_RANK_0 = (
    *("Raises", "RaisesAtStart", "Killed", "Gathers", "SkipsLoss"),
    "EndsBetweenRuns",
)
_AT_ONCE = 5
_LONGEST_S = 40


def case(kind: type[Net]) -> type[Net]:
    CASES[kind.__name__] = kind
    return kind


def is_faulty(module: Any, batch_idx: int = 1) -> bool:
    return batch_idx == 1 and module.global_rank == FAULTY


@case
class Raises(Net):
    """In a step."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if is_faulty(self, batch_idx):
            self.fail()
        return super().training_step(batch, batch_idx)

    def fail(self) -> None:
        raise ValueError("this one is broken")


@case
class RaisesAndWaits(Raises):
    """For the others, while it cleans up."""

    def teardown(self, stage: str) -> None:
        dist.barrier()


@case
class Exits(Raises):
    def fail(self) -> None:
        sys.exit(3)


@case
class Killed(Raises):
    def fail(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@case
class SilentlyGone(Raises):
    def fail(self) -> None:
        os._exit(7)


@case
class RaisesOfNetwork(Raises):
    """As reading data may: it is none of the processes' network."""

    def fail(self) -> None:
        raise RuntimeError("socket.py: Connection reset by peer")


@case
class EndsBetweenRuns(Net):
    def end_in_one(self) -> None:
        if is_faulty(self):
            sys.exit()
        self.trainer.fit(self, DataLoader(numbered(16), 2))


@case
class RaisesInSetup(Net):
    def setup(self, stage: str) -> None:
        if is_faulty(self):
            raise ValueError("this one is broken")


@case
class RaisesAtStart(Net):
    def on_train_start(self) -> None:
        if is_faulty(self):
            raise ValueError("this one is broken")


@case
class RaisesInValidation(Net):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        if is_faulty(self):
            raise ValueError("this one is broken")


@case
class RaisesInTeardown(Net):
    def teardown(self, stage: str) -> None:
        if is_faulty(self):
            raise ValueError("this one is broken")


@case
class Gathers(Net):
    """Calls for the others, alone."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        if is_faulty(self, batch_idx):
            self.all_gather(loss)  # the line
        return loss


@case
class Broadcasts(Net):
    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if is_faulty(self, batch_idx):
            self.trainer.strategy.broadcast("word", src=FAULTY)  # the line
        elif batch_idx == 1:
            self.trainer.strategy.barrier()  # another line


@case
class OwnCall(Net):
    """A call of torch's, not of the runtime's."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if is_faulty(self, batch_idx):
            dist.all_reduce(torch.zeros(3))  # the line


@case
class ShorterEpoch(Net):
    def on_train_batch_start(self, batch: Any, batch_idx: int) -> Any:
        return -1 if is_faulty(self, batch_idx) else None


@case
class SkipsLoss(Net):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        return None if is_faulty(self, batch_idx) else loss


@case
class SkipsLossInMapping(Net):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        return {"loss": None if is_faulty(self, batch_idx) else loss}


@case
class Slow(Net):
    """Computes for long in one process, and is not to be accused of anything."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if is_faulty(self, batch_idx):
            time.sleep(5)
        return super().training_step(batch, batch_idx)

    def on_train_end(self) -> None:
        sys.stderr.write("trained to the end\n")


def run(name: str, faulty: int) -> None:
    global FAULTY
    FAULTY = faulty
    torch.set_num_threads(1)
    trainer = quiet(2)
    module = CASES[name]()
    trainer.fit(module, DataLoader(numbered(16), 2), DataLoader(numbered(4), 2))
    if isinstance(module, EndsBetweenRuns):
        module.end_in_one()


def stores(count: int) -> tuple[int, list[int]]:
    """Start a process that holds as many stores, as torchrun's agent does its one.

    Returns:
        The process, and the stores' ports.
    """
    reads, writes = os.pipe()
    process = os.fork()
    if not process:
        held = [
            dist.TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
            for _ in range(count)
        ]
        os.write(writes, json.dumps([store.port for store in held]).encode())
        signal.pause()
    return process, json.loads(os.read(reads, 4096))


def forked(name: str, faulty: int, rank: int, port: int) -> int:
    """Start one process of a case; return its number."""
    process = os.fork()
    if process:
        return process
    for stream in (1, 2):
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        os.dup2(os.open(f"{name}.{faulty}.{rank}", flags), stream)
    os.environ |= {
        **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    code = 0
    try:
        run(name, faulty)
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    # All of an exit but the interpreter's end, which takes long with so much imported.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def import_everything() -> None:
    """Load what a fit loads on its way, so that forked processes have it."""
    import torch._dynamo  # noqa: F401

    quiet(1).validate(RaisesInValidation(), DataLoader(numbered(2), 2), verbose=False)
    gc.freeze()


def run_all() -> None:
    """Run every case, a few at a time: they mostly wait."""
    import_everything()
    waiting = [*((name, 1) for name in CASES), *((name, 0) for name in ALSO_RANK_0)]
    running: dict[int, tuple[str, int, float]] = {}
    ends: dict[str, dict[int, Any]] = {}
    holder, ports = stores(len(waiting))
    while waiting or running:
        while waiting and len(running) < 2 * _AT_ONCE:
            name, faulty = waiting.pop(0)
            port = ports.pop()
            for rank in range(2):
                process = forked(name, faulty, rank, port)
                running[process] = (f"{name}.{faulty}", rank, time.monotonic())
        process, status = os.waitpid(-1, os.WNOHANG)
        if process:
            name, rank, began = running.pop(process)
            code = os.waitstatus_to_exitcode(status)
            seconds = time.monotonic() - began
            ends.setdefault(name, {})[rank] = {"code": code, "seconds": seconds}
            continue
        for process, (_, _, began) in running.items():
            if time.monotonic() > began + _LONGEST_S:
                os.kill(process, signal.SIGKILL)
        time.sleep(0.05)
    os.kill(holder, signal.SIGKILL)
    Path("ends.json").write_text(json.dumps(ends))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run(sys.argv[1], int(sys.argv[2]))
    else:
        run_all()
