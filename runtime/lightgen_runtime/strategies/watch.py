"""Why processes wait for each other in vain: found out without a step knowing of it.

A thread looks twice a second whether this process has been waiting for the others in the
same call for a while. Only then does it tell, through the store that made the processes
find each other, what the calls were. Where two processes differ in one, neither can ever
go on; nor can one that waits for a process which an exception has taken out of the run, or
whose program has ended. A process that computes for long makes no wrong call, and is never
accused.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple

import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import get_error_handler

from lightgen_runtime.strategies import flight_record
from lightgen_runtime.strategies.flight_record import Call
from lightgen_runtime.strategies.launch import leave
from lightgen_runtime.utilities.call_site import raise_site
from lightgen_runtime.utilities.exceptions import OtherProcessError, add_note
from lightgen_runtime.utilities.rank_zero import print_to_stderr

_LOOK_EVERY_S = 0.5
# How long a call may take before what it is becomes of interest to the others.
_STUCK_S = 1.5
# How many calls are compared. Processes that differ are soon stuck.
_MOST_CALLS = 500
_ENDED = "lightgen/watch/ended"  # whose program ended first, and behind which call
# How long to wait for what others have to tell, and for a process to end by itself.
_ANSWER_S = 10.0
_GRACE_S = 5.0
_CLOSING_S = 2.0


class Failure(NamedTuple):
    """The process that was the first to leave a run by an exception, or to end.

    Attributes:
        rank: Its number.
        what: What has happened to it.
        code: Its exit code.
    """

    rank: int
    what: str
    code: int


class Watch:
    """One process's look at the others.

    Args:
        store: A connection of its own to the processes' store.
        rank: This process.
        cuda: Whether they talk by NCCL.
        holds_for: Others that meet at a store in this process. It lasts until they have
            ended, or for a moment, so that they learn what has happened here.

    Attributes:
        has_told: Whether it has said why this process ends.
        is_ending: Whether an exception has taken this process out of the run.
    """

    def __init__(
        self, store: Any, rank: int, cuda: bool, holds_for: Iterable[int] = ()
    ) -> None:
        self._store, self.rank = store, rank
        self._cuda, self._holds_for = cuda, holds_for
        self._run = -1
        self._training_step = ""
        self.has_told = False
        self.is_ending = False
        self._position: Any = None
        self._since = time.monotonic()
        self._told = 0  # the newest of its calls of which rank 0 knows
        self._read = 0
        self._calls: dict[int, tuple[Call, int]] = {}  # by whom each was told first
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    # ---- for the main thread ----

    def begin_run(self, training_step: str) -> None:
        """Note that a run begins, in all processes.

        Args:
            training_step: Where the module's is defined.
        """
        self._training_step = training_step
        self._run += 1
        self.is_ending = False

    def cause_of(self, error: BaseException) -> BaseException:
        """Return what has led to an error: itself, or what another process has done.

        The first process to call this in a run is the one that failed.
        """
        self.is_ending = True
        if isinstance(error, OtherProcessError):
            return error
        own = Failure(self.rank, *_told_of(error))
        try:
            if not _is_of_connection(error):
                self._note(own)
                _show_launcher(error)
                return error
            deadline = time.monotonic() + _GRACE_S
            while time.monotonic() < deadline:
                # First: processes that have parted ways end without an error.
                if self._store.check([self._key("message")]):
                    message = self._store.get(self._key("message")).decode()
                    return OtherProcessError(message, 1)
                failure = self.failure() or self._ended_before()
                if failure is not None and failure.rank != self.rank:
                    return self._consequence(failure)
                time.sleep(0.1)
            self._note(own)
        except RuntimeError:  # of a store whose process is gone
            pass
        add_note(
            error,
            "Another process, or the network, has gone without a word. A process that is "
            "killed, for example for want of memory, says nothing.",
        )
        return error

    def note_end(self, rank: int, code: int, what: str) -> None:
        """Note that another process has ended, unless some process has failed before."""
        with suppress(RuntimeError):
            self._note(Failure(rank, what, code))

    def note_torn_down(self) -> None:
        """Note that this process has nothing left to do in a run that it left."""
        with suppress(RuntimeError):
            self._store.set(self._key(f"torn_down/{self.rank}"), "")

    def note_exit(self) -> None:
        """Note that this process makes no more calls, and look no more."""
        position = flight_record.position(self._cuda)
        with suppress(RuntimeError):
            self._store.set(self._key(f"gone/{self.rank}"), "")
            if position is not None:
                ended = json.dumps([self.rank, position[0]])
                self._store.compare_set(_ENDED, "", ended)
            self._hold_store()
        self._over.set()
        self._thread.join(_GRACE_S)

    def _hold_store(self) -> None:
        others = [self._key(f"gone/{rank}") for rank in self._holds_for]
        deadline = time.monotonic() + _GRACE_S
        while others and not self._store.check(others) and time.monotonic() < deadline:
            time.sleep(0.05)

    def failure(self) -> Failure | None:
        """Return which process has failed first in this run, if one has."""
        with suppress(RuntimeError):
            if self._store.check([self._key("failure")]):
                return Failure(*json.loads(self._store.get(self._key("failure"))))
        return None

    def _note(self, failure: Failure) -> None:
        self._store.compare_set(self._key("failure"), "", json.dumps(failure))

    def _key(self, name: str) -> str:
        return f"lightgen/watch/{self._run}/{name}"

    # ---- for the thread ----

    def _watch(self) -> None:
        try:
            while not self._over.wait(_LOOK_EVERY_S):
                if self._run >= 0 and dist.is_initialized():
                    self._look()
        except RuntimeError:
            self._watch_without_store()

    def _watch_without_store(self) -> None:
        """End this process once it waits for one that is gone, and the store with it.

        Its own error, such as gloo's of a closed connection, comes before that.
        """
        while not self._over.wait(_LOOK_EVERY_S):
            if self._waits_for() > _GRACE_S and not self.is_ending:
                print_to_stderr(
                    f"Rank {self.rank} ends: the process at which all have met (rank 0, "
                    f"or torchrun's) is gone. Rank {self.rank} waited for the others: "
                    f"{self._described(self._position[0])}."
                )
                leave(1)

    def _waits_for(self) -> float:
        """Return for how many seconds this process has waited in the same call."""
        position = flight_record.position(self._cuda)
        now = time.monotonic()
        if position != self._position:
            self._position, self._since = position, now
        waits = position is not None and position[0] > position[1]
        return now - self._since if waits else 0.0

    def _look(self) -> None:
        is_stuck = self._waits_for() > _STUCK_S
        if is_stuck and self.is_ending:
            self.note_torn_down()  # its cleaning up waits for others that wait for its end
        if is_stuck or self.is_ending:
            self._tell_calls()
            self._answer()
            if not self.is_ending and (failure := self.failure()):
                self._leave_for(failure)
            if not self.is_ending and (failure := self._ended_before()):
                self._consequence(failure)
                self._leave(failure.code)
        if self.rank == 0:
            self._compare()

    def _ended_before(self) -> Failure | None:
        """Return whose program has ended without the call that this process waits in."""
        if not self._store.check([_ENDED]):
            return None
        rank, made = json.loads(self._store.get(_ENDED))
        position = flight_record.position(self._cuda)
        if rank == self.rank or position is None or position[0] <= made:
            return None
        return Failure(rank, "has ended its program", 1)

    def _tell_calls(self) -> None:
        """Tell rank 0 which calls were made since it was last told."""
        if self._position is None or self._position[0] == self._told:
            return
        made = flight_record.calls(self._cuda, _MOST_CALLS)
        new = [call for call in made if call.number > self._told]
        self._told = self._position[0]
        number = self._store.add("lightgen/watch/told", 1)
        self._store.set(f"lightgen/watch/told/{number}", json.dumps([self.rank, new]))

    def _compare(self) -> None:
        """Compare what has been told since; for the thread of rank 0."""
        told = self._store.add("lightgen/watch/told", 0)
        for number in range(self._read + 1, told + 1):
            key = f"lightgen/watch/told/{number}"
            if self.has_told or not self._store.check([key]):
                return  # it is on its way; waiting for it would hold up the main thread
            rank, made = json.loads(self._store.get(key))
            self._store.delete_key(key)
            self._read = number
            for call in (Call(*each) for each in made):
                theirs, other = self._calls.setdefault(call.number, (call, rank))
                if theirs != call:
                    self._end_all(call.number, sorted((rank, other)))
                    return
        for number in sorted(self._calls)[: -2 * _MOST_CALLS]:
            del self._calls[number]

    def _end_all(self, call: int, ranks: list[int]) -> None:
        """Say on which lines two processes have parted, and end all."""
        self._store.set(self._key("question"), json.dumps([call, *ranks]))
        lines = []
        for rank in ranks:
            deadline = time.monotonic() + _ANSWER_S
            key = self._key(f"answer/{rank}")
            while not self._store.check([key]) and time.monotonic() < deadline:
                self._answer()
                if self._over.wait(0.1):
                    return
            known = self._store.check([key])
            said = self._store.get(key).decode() if known else "no answer"
            lines.append(f"  rank {rank}: {said}")
        message = (
            "The processes of this run have parted ways, and would wait for each other "
            f"for ever. Their call number {call} to the others is\n"
            + "\n".join(lines)
            + "\nEvery process has to make the same calls in the same order: make one in "
            "all of them, or in none."
        )
        self.has_told = True
        print_to_stderr(message)
        self._store.set(self._key("message"), message)
        # The others end first: their connections are what rank 0 may be woken by.
        self._over.wait(_GRACE_S)
        if not self.is_ending and not self._over.is_set():
            leave(1)

    def _answer(self) -> None:
        """Say what this process does in the call in question; end if all is said."""
        if not self._store.check([self._key("question")]):
            return
        call, *ranks = json.loads(self._store.get(self._key("question")))
        key = self._key(f"answer/{self.rank}")
        if self.rank in ranks and not self._store.check([key]):
            self._store.set(key, self._described(call))
        if self.rank and self._store.check([self._key("message")]):
            self._leave(1)

    def _described(self, call: int) -> str:
        return flight_record.described(self._cuda, call, self._training_step)

    def _leave_for(self, failure: Failure) -> None:
        """End, as soon as the process that failed has said why."""
        deadline = None
        while not self.is_ending and not self._over.is_set():
            now = time.monotonic()
            if self._store.check([self._key(f"gone/{failure.rank}")]):
                # The end of its connections may wake the main thread of this one.
                deadline = min(deadline or math.inf, now + _CLOSING_S)
            elif self._store.check([self._key(f"torn_down/{failure.rank}")]):
                deadline = deadline or now + _GRACE_S
            if deadline is not None and now >= deadline:
                self._consequence(failure)
                self._leave(failure.code or 1)
            self._over.wait(0.1)

    def _leave(self, code: int) -> None:
        with suppress(RuntimeError):
            self._store.set(self._key(f"gone/{self.rank}"), "")
        leave(code)

    def _consequence(self, failure: Failure) -> OtherProcessError:
        message = f"Rank {self.rank} ends: rank {failure.rank} {failure.what}."
        # One of the others is enough.
        if self.rank == (0 if failure.rank else 1):
            self.has_told = True
            if (position := flight_record.position(self._cuda)) is not None:
                where = self._described(position[0])
                message += f" Rank {self.rank} waited for it: {where}."
            print_to_stderr(message)
        return OtherProcessError(message, failure.code or 1)


_watch: Watch | None = None


def watching(rank: int, holds_for: Iterable[int]) -> Watch:
    """Return this process's watch, started where it is the first."""
    global _watch
    if _watch is None:
        store: Any = dist.distributed_c10d._get_default_store()
        cuda = "nccl" in dist.get_backend()
        _watch = Watch(store.clone(), rank, cuda, holds_for)
        # The interpreter's end would not wait for a thread that is inside of torch.
        atexit.register(_watch.note_exit)
    return _watch


def _is_of_connection(error: BaseException) -> bool:
    """Tell the errors that a call gives because of another process."""
    if not isinstance(error, RuntimeError):
        return False
    # Those of gloo, and of NCCL inside of a step, are of no class of their own.
    of_torch = isinstance(error, dist.DistError)
    return of_torch or any(word in str(error) for word in ("gloo", "Gloo", "NCCL"))


def _show_launcher(error: BaseException) -> None:
    """Have torchrun close with the error of the process that failed, not its exit code."""
    if "TORCHELASTIC_ERROR_FILE" in os.environ and isinstance(error, Exception):
        get_error_handler().record_exception(error)


def _told_of(error: BaseException) -> tuple[str, int]:
    site = raise_site(error.__traceback__)
    where = f" at {site}" if site else ""
    code = 1
    if isinstance(error, SystemExit):
        code = (
            error.code
            if isinstance(error.code, int)
            else 0 if error.code is None else 1
        )
    elif isinstance(error, KeyboardInterrupt):
        code = 130
    text = str(error).partition("\n")[0].rstrip(".")
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"has left by {said}{where}", code
