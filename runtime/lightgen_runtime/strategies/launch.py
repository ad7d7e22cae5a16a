"""Starting the other processes of a run, and none of them outliving the others.

Rank 0 starts the rest by running its own command line again with their ranks in the
environment. Nothing here is in the way of a step: a thread on each side looks at the
other processes a few times a second.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from multiprocessing import parent_process
from multiprocessing import process as of_multiprocessing
from typing import Any

from torch._C._distributed_c10d import TCPStore

from lightgen_runtime.strategies.environments.cluster import ClusterEnvironment
from lightgen_runtime.strategies.environments.detection import STARTER, is_own_process
from lightgen_runtime.strategies.ranks import Ranks
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.rank_zero import print_to_stderr

_HOST = "127.0.0.1"
# In which this program began, and the others begin: it may have changed its folder since.
_ORIGINAL_FOLDER: str | None = getattr(of_multiprocessing, "ORIGINAL_DIR", None)
_LOOK_EVERY_S = 0.2
# How long a process may take to end by itself after another one has failed.
GRACE_S = 5.0
# By SIGINT, which a terminal sends to all processes; by a signal that all have agreed on.
INTERRUPTED = (130, -2, *(128 + number for number in signal.Signals))


class Children:
    """The processes that rank 0, or the first of each node, has started.

    They use the same standard output and error. When one fails, all others end, rank 0
    among them, with the exit code of the first; when rank 0 ends, it waits for them.

    Args:
        ranks: Those of this process.
        store: Where all of them meet.

    Attributes:
        failing: Whether an exception is on its way through rank 0.
        is_consequence: Whether another process is the reason of it.
        watch: Knows which process failed first, once they talk.
    """

    def __init__(self, ranks: Ranks, store: Any) -> None:
        self.store = store
        self.ranks = ranks
        self.failing = self.is_consequence = False
        self.watch: Any = None
        self._telling = threading.Lock()
        self._told = False
        here = ranks.local_world_size
        command = own_command() if here > 1 else []
        self._processes = {
            ranks.global_rank
            + local: subprocess.Popen(
                command, cwd=_ORIGINAL_FOLDER, env=self._environment(local)
            )
            for local in range(1, here)
        }
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        if self._processes:
            self._thread.start()
        atexit.register(self._wait_at_exit)

    def _environment(self, local: int) -> dict[str, str]:
        first = self.ranks
        ranks = replace(first, global_rank=first.global_rank + local, local_rank=local)
        return {**os.environ, **variables_of(ranks, self.store)}

    def _watch(self) -> None:
        while (failed := self._failed()) is None:
            if self._over.wait(_LOOK_EVERY_S):
                return
        rank, process = failed
        if self.watch is not None:
            code = exit_code(process)
            self.watch.note_end(rank, code, _how_ended(process.returncode))
        self._tell(rank, process)
        self._end_the_others()
        # Rank 0 may be waiting for that process in a way that nothing can interrupt;
        # unless an exception has reached it: then it ends by itself.
        self._over.wait(GRACE_S)
        while self.failing and not self._over.wait(_LOOK_EVERY_S):
            pass
        if not self._over.is_set():
            leave(exit_code(process))

    def _tell(self, rank: int, process: subprocess.Popen[bytes]) -> None:
        """Say once which process failed first, unless they were all interrupted."""
        with self._telling:
            told = self._told or (self.watch is not None and self.watch.has_told)
            if not told and process.returncode not in INTERRUPTED:
                print_to_stderr(
                    f"Rank {rank} (process {process.pid}) "
                    f"{_how_ended(process.returncode)}; what it said is above. The other "
                    "processes end too."
                )
            self._told = True

    def _failed(self) -> tuple[int, subprocess.Popen[bytes]] | None:
        """Return the process that has failed first, of those that have ended."""
        ended = {rank: each for rank, each in self._processes.items() if each.poll()}
        failure = self.watch.failure() if ended and self.watch is not None else None
        if failure is not None and failure.rank in ended:
            return failure.rank, ended[failure.rank]
        return next(iter(ended.items()), None)

    def _end_the_others(self) -> None:
        """Give every process a moment to end by itself, then kill it."""
        deadline = time.monotonic() + GRACE_S
        for process in self._processes.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _wait_at_exit(self) -> None:
        # `last_value`: of an exception that nobody caught, outside of any run.
        failing = self.failing or hasattr(sys, "last_value")
        try:
            for process in self._processes.values():
                if not failing:
                    process.wait()
        except KeyboardInterrupt:
            failing = True
        if (failed := self._failed()) is not None:
            self._tell(*failed)
        self._told = True
        self._end_the_others()
        # The interpreter's end aborts the process if that thread is inside of torch then.
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(GRACE_S)
        if failed is not None and (self.is_consequence or not failing):
            leave(exit_code(failed[1]))  # else it is that of what happened here


_children: Children | None = None


def own_store() -> Any:
    """Return a store for the processes of this node, at a port of the system's choice.

    It is bound at once: no other program can take it.
    """
    return TCPStore(_HOST, 0, is_master=True, wait_for_workers=False)


def variables_of(ranks: Ranks, store: Any) -> dict[str, str]:
    """Return what tells a process that this one starts who it is."""
    return {
        **ranks.environment(),
        "MASTER_ADDR": store.host,
        "MASTER_PORT": str(store.port),
        STARTER: str(os.getpid()),
    }


def start_processes(ranks: Ranks, make_store: Callable[[], Any]) -> Any:
    """Start this node's other ranks, unless that is done; return the store of all.

    Args:
        ranks: Those of this process.
        make_store: Makes the store where all processes meet.

    Raises:
        MisconfigurationException: They were started for another number of processes, or
            this program cannot be run again.
    """
    global _children
    if _children is None:
        _children = Children(ranks, make_store())
    if _children.ranks != ranks:
        raise MisconfigurationException(
            f"this `Trainer` wants {ranks.world_size} processes; an earlier one in this "
            f"program has started {_children.ranks.world_size}. Use the same number of "
            "devices, or put the two into programs of their own."
        )
    return _children.store


def join_store(timeout: timedelta) -> Any | None:
    """Return the store of the rank 0 that started this process; None if none did."""
    if not is_own_process():
        return None
    watcher = threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True)
    watcher.start()
    port = int(os.environ["MASTER_PORT"])
    return TCPStore(os.environ["MASTER_ADDR"], port, timeout=timeout)


def store_at(environment: ClusterEnvironment, ranks: Ranks, timeout: timedelta) -> Any:
    """Return the store of processes that somebody else has started; rank 0 holds it.

    Raises:
        MisconfigurationException: The processes do not find each other.
    """
    address, port = environment.main_address, environment.main_port
    try:
        return TCPStore(
            address,
            port,
            ranks.world_size,
            is_master=ranks.global_rank == 0,
            timeout=timeout,
            wait_for_workers=False,
        )
    except RuntimeError as error:
        does = "cannot be reached at" if ranks.global_rank == 0 else "does not find"
        raise MisconfigurationException(
            f"process {ranks.global_rank} of {ranks.world_size} {does} {address}:{port}, "
            f"where {type(environment).__name__} has the first process. Set MASTER_ADDR "
            "and MASTER_PORT to the first node and a free port there, the same for all "
            "processes."
        ) from error


def note_failure(failing: bool, is_consequence: bool = False) -> None:
    """Have the processes that this one started ended, not waited for, at its exit.

    Args:
        failing: Whether an exception is on its way.
        is_consequence: Whether another process is the reason of it.
    """
    if _children is not None:
        _children.failing, _children.is_consequence = failing, is_consequence


def note_watch(watch: Any) -> None:
    """Let who started processes ask which one failed first, and tell of their ends.

    Args:
        watch: The `Watch` of this process.
    """
    if _children is not None:
        _children.watch = watch


def exit_code(process: subprocess.Popen[bytes]) -> int:
    """Return a process's exit code, as shells know it where a signal has ended it."""
    code = process.returncode
    return code if code >= 0 else 128 - code


def _how_ended(returncode: int) -> str:
    if returncode >= 0:
        return f"ended with exit code {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    hint = ", perhaps for want of memory" if name == "SIGKILL" else ""
    return f"was ended by {name}{hint}"


def own_command() -> list[str]:
    """Return the command line of this program, as an absolute one.

    Raises:
        MisconfigurationException: It is an interactive session, which has none.
    """
    main = sys.modules["__main__"]
    script = getattr(main, "__file__", None)
    arguments = sys.orig_argv[1:]
    if script is None and "-c" not in arguments:
        raise MisconfigurationException(
            "a run on several devices starts its other processes by running the program "
            "again, which is not possible for an interactive session. Use `Trainer("
            "strategy='ddp_notebook')`, or put the program into a file."
        )
    if script is not None and main.__spec__ is None and sys.argv[0] in arguments:
        # The program may have changed its folder before torch was imported.
        arguments[arguments.index(sys.argv[0])] = script
    return [sys.executable, *arguments]


def _end_with(parent: int) -> None:
    """End this process soon after what has started it, however that one ended."""
    # Where that is not the parent: the parent of a fork server's process is the server.
    starter = parent_process()
    while os.getppid() == parent and (starter is None or starter.is_alive()):
        time.sleep(_LOOK_EVERY_S)
    leave(1)


def leave(code: int) -> None:
    """End this process at once, wherever its threads are; nothing is cleaned up."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:  # they may be closed
        os._exit(code)
