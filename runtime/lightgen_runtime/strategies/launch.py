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
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from lightgen_runtime.strategies.ranks import Ranks
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.rank_zero import print_to_stderr

_TCPStore: Any = getattr(dist, "TCPStore")  # noqa: B009 - not declared for checkers
_HOST = "127.0.0.1"
_STARTER = "LIGHTGEN_STARTED_BY"  # process id of rank 0, in those that it started
_LOOK_EVERY_S = 0.2
# How long a process may take to end by itself after another one has failed.
_GRACE_S = 5.0
# By SIGINT, which a terminal sends to all processes; by a signal that all have agreed on.
_INTERRUPTED = (130, -2, *(128 + number for number in signal.Signals))


class Children:
    """The processes that rank 0 has started.

    They use the same standard output and error. When one fails, all others end, rank 0
    among them, with the exit code of the first; when rank 0 ends, it waits for them.

    Args:
        world_size: Processes of the run, rank 0 included.

    Attributes:
        failing: Whether an exception is on its way through rank 0.
        is_consequence: Whether another process is the reason of it.
        watch: Knows which process failed first, once they talk.
    """

    def __init__(self, world_size: int) -> None:
        # A port of the system's choice, bound at once: no other program can take it.
        self.store: Any = _TCPStore(_HOST, 0, is_master=True, wait_for_workers=False)
        self.world_size = world_size
        self.failing = self.is_consequence = False
        self.watch: Any = None
        self._telling = threading.Lock()
        self._told = False
        command = own_command() if world_size > 1 else []
        self._processes = {
            rank: subprocess.Popen(command, env=self._environment(rank))
            for rank in range(1, world_size)
        }
        if self._processes:
            threading.Thread(target=self._watch, daemon=True).start()
        atexit.register(self._wait_at_exit)

    def _environment(self, rank: int) -> dict[str, str]:
        ranks = Ranks(rank, rank, 0, self.world_size, self.world_size)
        return {
            **os.environ,
            **ranks.environment(),
            "MASTER_ADDR": _HOST,
            "MASTER_PORT": str(self.store.port),
            _STARTER: str(os.getpid()),
        }

    def _watch(self) -> None:
        while (failed := self._failed()) is None:
            time.sleep(_LOOK_EVERY_S)
        rank, process = failed
        if self.watch is not None:
            code = exit_code(process)
            self.watch.note_end(rank, code, _how_ended(process.returncode))
        self._tell(rank, process)
        self._end_the_others()
        # Rank 0 may be waiting for that process in a way that nothing can interrupt;
        # unless an exception has reached it: then it ends by itself.
        time.sleep(_GRACE_S)
        while self.failing:
            time.sleep(_LOOK_EVERY_S)
        leave(exit_code(process))

    def _tell(self, rank: int, process: subprocess.Popen[bytes]) -> None:
        """Say once which process failed first, unless they were all interrupted."""
        with self._telling:
            told = self._told or (self.watch is not None and self.watch.has_told)
            if not told and process.returncode not in _INTERRUPTED:
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
        deadline = time.monotonic() + _GRACE_S
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
        if failed is not None and (self.is_consequence or not failing):
            leave(exit_code(failed[1]))  # else it is that of what happened here


_children: Children | None = None


def start_processes(world_size: int) -> Any:
    """Start the other ranks of this program, unless that is done; return their store.

    Raises:
        MisconfigurationException: They were started for another number of processes, or
            this program cannot be run again.
    """
    global _children
    if _children is None:
        _children = Children(world_size)
    if _children.world_size != world_size:
        raise MisconfigurationException(
            f"this `Trainer` wants {world_size} processes; an earlier one in this program "
            f"has started {_children.world_size}. Use the same number of devices, or put "
            "the two into programs of their own."
        )
    return _children.store


def join_store(timeout: timedelta) -> Any | None:
    """Return the store of the rank 0 that started this process; None if none did."""
    starter = os.environ.get(_STARTER)
    if starter is None:
        return None
    watcher = threading.Thread(target=_end_with, args=(int(starter),), daemon=True)
    watcher.start()
    port = int(os.environ["MASTER_PORT"])
    return _TCPStore(os.environ["MASTER_ADDR"], port, timeout=timeout)


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
            "devices=1)`, or put the program into a file."
        )
    if script is not None and main.__spec__ is None and sys.argv[0] in arguments:
        # The program may have changed its folder meanwhile.
        arguments[arguments.index(sys.argv[0])] = script
    return [sys.executable, *arguments]


def _end_with(starter: int) -> None:
    """End this process soon after the one that started it, however that one ended."""
    while os.getppid() == starter:
        time.sleep(_LOOK_EVERY_S)
    leave(1)


def leave(code: int) -> None:
    """End this process at once, wherever its threads are; nothing is cleaned up."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
