"""Running a job in processes that this one forks or spawns, for one run at a time.

Where a program cannot be run again, as in a notebook, they are copies of this process
(fork); else they may also start anew and be sent the job (spawn).
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess, current_process
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.multiprocessing.spawn import (
    ProcessExitedException,
    ProcessRaisedException,
)

from lightgen_runtime.strategies.launch import (
    GRACE_S,
    INTERRUPTED,
    variables_of,
)
from lightgen_runtime.strategies.ranks import Ranks
from lightgen_runtime.utilities.exceptions import (
    MisconfigurationException,
    SIGTERMException,
)
from lightgen_runtime.utilities.rank_zero import rank_zero_only

# What a process is given: called with what keeps a value for the starting process.
Job = Callable[[Callable[[Any], None]], None]

_JOB, _KEPT = "job", "kept"
_INTERRUPTS_BEFORE_KILL = 2  # the first lets a fit save, the second stops it at once


def is_interactive() -> bool:
    """Tell whether this is a session, such as a notebook, and no program to run again."""
    has_file = getattr(sys.modules["__main__"], "__file__", None) is not None
    is_program = has_file or "-c" in sys.orig_argv[1:]
    return hasattr(sys, "ps1") or bool(sys.flags.interactive) or not is_program


def check_start_method(start_method: str) -> None:
    """Refuse a way to start processes that is none here.

    Raises:
        MisconfigurationException: This system, or an interactive session, has no such way.
    """
    if start_method not in mp.get_all_start_methods():
        raise MisconfigurationException(
            f"processes cannot be started by {start_method!r} on this system "
            f"({sys.platform}); it has {', '.join(mp.get_all_start_methods())}. Put the "
            "program into a file and use `Trainer(strategy='ddp')`, or devices=1."
        )
    if start_method != "fork" and is_interactive():
        raise MisconfigurationException(
            f"processes that start by {start_method!r} import the program, which an "
            "interactive session has not. Use `Trainer(strategy='ddp_notebook')`, or put "
            "the program into a file."
        )


def run_in_processes(
    job: Job,
    ranks: Ranks,
    store: Any,
    start_method: str,
    signals: Collection[int] = (),
    take: Callable[[Any], None] = lambda kept: None,
) -> None:
    """Run `job` in all processes of this node, and wait for their end.

    Args:
        job: What each process does.
        ranks: Those of the first of them.
        store: Where all processes meet.
        start_method: "fork", "spawn" or "forkserver".
        signals: Numbers of the signals to pass on to the processes.
        take: Called with what the first process has kept, however the job ended.

    Raises:
        BaseException: What first went wrong in one of them, as it was raised there; its
            cause has the traceback.
        MisconfigurationException: The processes cannot be started like this.
    """
    _check_this_process(start_method)
    with TemporaryDirectory(prefix="lightgen-") as name:
        folder = Path(name)
        if start_method != "fork":
            _send(job, folder)
        given = job if start_method == "fork" else None
        context: Any = mp.get_context(start_method)
        processes = [
            context.Process(
                target=_work,
                args=(given, _variables(ranks, local, store), name, start_method),
            )
            for local in range(ranks.local_world_size)
        ]
        try:
            # Before signals are passed on: a forked process has inherited what does that.
            for process in processes:
                process.start()
            with _passing_on(processes, signals):
                _wait_for(processes)
        finally:
            codes = [process.exitcode for process in processes]
            _end(processes)
            if (folder / _KEPT).is_file():
                take(torch.load(folder / _KEPT, weights_only=False))
        _raise_silent(processes, codes, folder)
        _raise_first(processes, folder)


def _check_this_process(start_method: str) -> None:
    if getattr(current_process(), "_inheriting", False):
        raise MisconfigurationException(
            f"processes that start by {start_method!r} import the program, and that has "
            "reached the run again. Put what begins it under `if __name__ == "
            "'__main__':`."
        )
    if start_method == "fork" and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        raise MisconfigurationException(
            "this process has used CUDA, and its forked copies could not: something has "
            "moved a tensor or model to a GPU, or called `torch.cuda`. Start the session "
            "anew and leave that to the trainer; or put the program into a file and use "
            "`Trainer(strategy='ddp')`."
        )


def _send(job: Job, folder: Path) -> None:
    """Write the job down for processes that have nothing of this one's memory.

    By value: tensors in shared memory would be trained by all of them at once.
    """
    try:
        torch.save(job, folder / _JOB)
    except (AttributeError, TypeError, pickle.PicklingError) as error:
        raise MisconfigurationException(
            "the trainer, the model and its data are sent to the processes, and not all "
            f"of them can be: {error}. Replace it (a lambda by a function of a module, for "
            "example), or use `Trainer(strategy='ddp')`."
        ) from error


def _variables(ranks: Ranks, local: int, store: Any) -> dict[str, str]:
    number = ranks.global_rank + local
    return variables_of(replace(ranks, global_rank=number, local_rank=local), store)


def _work(
    job: Job | None, variables: dict[str, str], folder: str, start_method: str
) -> None:
    os.environ.update(variables)
    rank = rank_zero_only.rank = int(variables["RANK"])
    if hasattr(os, "setpgid"):
        os.setpgid(
            0, 0
        )  # so that Ctrl-C reaches the starting process, which passes it on
    if start_method == "fork":
        # What the copy has inherited is not its own to clean up: a store of an earlier
        # run would wait for ever for its thread, which was not copied.
        gc.freeze()
        # Source: GNU's OpenMP, whose threads a forked process lacks and waits for.
        os.environ["OMP_NUM_THREADS"] = "1"
        torch.set_num_threads(1)
    first = variables["LOCAL_RANK"] == "0"
    try:
        if job is None:
            job = torch.load(Path(folder, _JOB), weights_only=False)
        assert job is not None
        job(lambda kept: torch.save(kept, Path(folder, _KEPT)) if first else None)
        gc.collect()
        if dist.is_initialized():
            dist.destroy_process_group()
    except BaseException as error:
        _note(error, Path(folder, f"error_{rank}"))
        raise SystemExit(_exit_code(error)) from None


def _exit_code(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    return 128 + error.signal if isinstance(error, SIGTERMException) else 1


def _note(error: BaseException, path: Path) -> None:
    try:
        content = pickle.dumps(error)
        pickle.loads(content)
    except Exception:  # its class decides what that takes
        content = b""
    record = (time.time(), os.getpid(), "".join(traceback.format_exception(error)))
    torch.save((*record, content), path)


def _wait_for(processes: list[BaseProcess]) -> None:
    """Wait until all have ended, or one has failed."""
    running = list(processes)
    while running:
        wait([process.sentinel for process in running])
        running = [process for process in running if process.is_alive()]
        if any(
            process.exitcode not in (None, 0, *INTERRUPTED) for process in processes
        ):
            return


def _end(processes: list[BaseProcess]) -> None:
    """Give every process a moment to end by itself, then kill it."""
    deadline = time.monotonic() + GRACE_S
    for process in processes:
        if process.pid is not None:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()


@contextmanager
def _passing_on(
    processes: list[BaseProcess], signals: Collection[int]
) -> Iterator[None]:
    """Let signals to this process reach those that work for it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    interrupts = 0

    def pass_on(number: int, frame: Any) -> None:
        nonlocal interrupts
        interrupts += number == signal.SIGINT
        for process in processes:
            if not process.is_alive():
                continue
            if interrupts > _INTERRUPTS_BEFORE_KILL:
                process.kill()
            else:
                os.kill(process.pid, number)  # type: ignore[arg-type]

    former = {number: signal.getsignal(number) for number in signals}
    try:
        for number, handler in former.items():
            if handler not in (None, signal.SIG_IGN):
                signal.signal(number, pass_on)
        yield
    finally:
        for number, handler in former.items():
            if handler is not None:
                signal.signal(number, handler)


def _raise_silent(
    processes: list[BaseProcess], codes: list[int | None], folder: Path
) -> None:
    """Raise if a process has ended without an error: the others' errors come of that."""
    told = {torch.load(path, weights_only=False)[1] for path in _notes(folder)}
    for number, (process, code) in enumerate(zip(processes, codes, strict=True)):
        if code and process.pid not in told:
            raise ProcessExitedException(
                f"process {number} of {len(processes)} ended without a word, with exit "
                f"code {code}; what it printed is above",
                number,
                process.pid or 0,
                code,
            )


def _notes(folder: Path) -> list[Path]:
    return sorted(folder.glob("error_*"))


def _raise_first(processes: list[BaseProcess], folder: Path) -> None:
    """Raise what went wrong first, if anything has."""
    records = [torch.load(path, weights_only=False) for path in _notes(folder)]
    if not records:
        return
    _, pid, text, content = min(records)
    number = [process.pid for process in processes].index(pid)
    told = ProcessRaisedException(
        f"in process {number} of {len(processes)}:\n\n{text}", number, pid
    )
    if not content:
        raise told
    raise pickle.loads(content) from told
