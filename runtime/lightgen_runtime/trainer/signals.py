"""What a fit does when its process is asked to stop: save at a safe point, then end.

A signal is noted at once and acted on after the running batch. Nothing of this is in
the way of a step: a thread that sleeps until there is a signal watches the deadline.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

from lightgen_runtime.callbacks.preemption import Preemption
from lightgen_runtime.io.schema import SETTLED
from lightgen_runtime.trainer import slurm
from lightgen_runtime.trainer.ckpt_path import has_left_state, newest_checkpoint
from lightgen_runtime.trainer.interruption import save_interrupted
from lightgen_runtime.trainer.states import RunningStage
from lightgen_runtime.trainer.wakeup import Wakeup
from lightgen_runtime.utilities.exceptions import SIGTERMException
from lightgen_runtime.utilities.rank_zero import (
    print_to_stderr,
    rank_zero_only,
    rank_zero_warn,
)

if TYPE_CHECKING:
    from lightgen_runtime.loops.run import Run
    from lightgen_runtime.strategies.stop_votes import StopVotes
    from lightgen_runtime.trainer.trainer import Trainer

_LOOK_EVERY_S = 0.5  # whether another process asks to stop
_VOTES_EVERY_S = 0.05
# How long all processes may take to answer a vote, each from a thread that looks twice a
# second. Who has not is gone: a launcher ends the others with a signal, and waits.
_VOTES_WITHIN_S = 5.0
# How long the program may take to end by itself once the deadline is over.
_GRACE_S = 5.0


class StopRequest:
    """Turns signals into the end of a fit at its next safe point.

    Args:
        trainer: Whose fit it is.
        run: That fit.
        former: What handles each signal outside of the fit.
    """

    def __init__(self, trainer: Trainer, run: Run, former: dict[int, Any]) -> None:
        self._trainer, self._run, self._former = trainer, run, former
        self._deadline_s = settings_of(trainer).deadline_s
        self._number: int | None = None  # of the signal that asked first
        self._expired = self._is_over = False
        self._interrupts = 0  # how often Ctrl-C was pressed
        self._process, self._thread_id = os.getpid(), threading.get_ident()
        self._votes = trainer.strategy.stop_votes()
        self._last_batch = 0  # the one behind which to stop
        # Locks, because a signal handler may not wait for anything.
        self._agreed, self._reached, self._begun = (threading.Lock() for _ in range(3))
        for lock in (self._agreed, self._reached):
            lock.acquire()
        self._is_stopping = False
        self._of_children: Any = None  # what handles the end of a child otherwise

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals inside; raise at the end if no batch was left to stop at."""
        self._wakeup = Wakeup()
        for number in self._former:
            signal.signal(number, self._note)
        watcher = threading.Thread(target=self._watch, daemon=True)
        watcher.start()
        try:
            yield
        except RuntimeError as error:
            if not self._has_lost_a_worker(error):
                raise
            self._stop_without_worker()
        finally:
            self._is_over = True
            _release(self._reached)
            for number, handler in self._former.items():
                signal.signal(number, handler)
            if self._of_children is not None:
                signal.signal(signal.SIGCHLD, self._of_children)
            self._wakeup.close(watcher)
            self._run.stop_request = None
        if self._number is not None:
            raise _error(self._number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            self._pass_on_in_child(number)
            return
        if number == signal.SIGTERM:
            self._trainer.note_sigterm()
        self._interrupts += number == signal.SIGINT
        if self._expired or self._interrupts > 1:
            raise _error(number)
        former = self._former[number]
        if callable(former) and number != signal.SIGINT:
            former(number, frame)
        self._begin(number)
        self._wakeup.note(number)
        self._outlive_workers()

    def _begin(self, number: int) -> None:
        if not self._begun.acquire(blocking=False):
            return
        self._number = number
        self._run.request_stop(self._stop)
        _announce(number)

    def _pass_on_in_child(self, number: int) -> None:
        """Let a forked process, which has inherited the handler, end by SIGTERM only.

        A terminal or a cluster signals all processes of a job, and the loader's workers
        have to feed the fit until its safe point.
        """
        if number == signal.SIGTERM:
            signal.signal(number, self._former[number])
            signal.raise_signal(number)

    def _outlive_workers(self) -> None:
        """Let a loader's worker that the same signal ends fail no running batch.

        torch tells of it by an error that its handler raises anywhere in this thread.
        """
        number = getattr(signal, "SIGCHLD", None)
        former = None if number is None else signal.getsignal(number)
        if number is None or self._of_children is not None or not callable(former):
            return

        def tell(number: int, frame: FrameType | None) -> None:
            if self._waits_for_batch():
                former(number, frame)
                return
            with suppress(RuntimeError):
                former(number, frame)

        self._of_children = former
        signal.signal(number, tell)

    def _stop(self) -> None:
        """Save and raise; called at safe points, in the fit's own thread."""
        assert self._number is not None
        if self._votes is not None and not self._is_agreed_batch():
            return
        self._is_stopping = True
        _release(self._reached)
        save_interrupted(self._trainer)
        raise _error(self._number)

    def _has_lost_a_worker(self, error: RuntimeError) -> bool:
        """Tell whether the signal has ended a process that loads batches."""
        asked = self._number is not None and not self._expired
        return asked and "DataLoader worker" in str(error)

    def _stop_without_worker(self) -> None:
        """Save if the fit was waiting for a batch, which is a safe point too; raise."""
        assert self._number is not None
        if self._waits_for_batch():
            self._stop()
        _release(self._reached)
        print_to_stderr(
            f"{_name(self._number)} has also ended a worker of the loader inside a batch: "
            f"stopping without saving. {self._what_is_left()}."
        )
        raise _error(self._number)

    def _waits_for_batch(self) -> bool:
        """Tell whether all that was given to the loops is done, and nothing else begun."""
        run, position = self._run, self._run.validation
        if self._is_stopping:
            return False
        if position is None:
            done, source = run.progress.batch_idx, run.source
            at_batch = run.progress.phase == SETTLED and source.opened("train")
            return at_batch and not source.train().has_given(done)
        feeds = run.source.feeds("validate")
        at_batch = position.settled and position.rng is not None  # that is, opened
        return at_batch and not feeds[position.loader].has_given(position.batches)

    def _what_is_left(self) -> str:
        newest = newest_checkpoint(self._trainer)
        return (
            f"The last checkpoint is `{newest}`" if newest else "There is no checkpoint"
        )

    def _is_agreed_batch(self) -> bool:
        """Tell whether this is where all processes stop; wait until that is settled."""
        if self._trainer.state.stage != RunningStage.TRAINING:
            return False  # processes may validate different numbers of batches
        self._agreed.acquire()
        self._agreed.release()
        return self._run.progress.total_batches >= self._last_batch

    def _watch(self) -> None:
        number = self._next_request()
        end = time.monotonic() + self._deadline_s
        if number is None:
            return
        self._begin(number)
        reason = f"No batch has ended within {self._deadline_s:g} s of {_name(number)}"
        remedy = " `Preemption(deadline_s=...)` waits longer."
        if self._votes is not None and not self._agree(self._votes, number, end):
            reason = f"{_name(number)}: another process does not answer"
            remedy, end = "", 0.0
        if self._reached.acquire(timeout=max(0.0, end - time.monotonic())):
            return
        self._expired = True
        print_to_stderr(
            f"{reason}: stopping without saving. {self._what_is_left()}.{remedy}"
        )
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(self._thread_id, number)  # wakes it where it sleeps
        if not self._reached.acquire(timeout=_GRACE_S):
            os._exit(128 + number)

    def _next_request(self) -> int | None:
        """Wait for a signal, here or in another process; None at the fit's end."""
        votes = self._votes
        while not self._is_over:
            numbers = self._wakeup.wait(None if votes is None else _LOOK_EVERY_S)
            if numbers == b"":
                return None
            asked = [number for number in numbers or b"" if number in self._former]
            if asked:
                return asked[0]
            try:
                if votes is not None and (number := votes.asked()) is not None:
                    return number
            except RuntimeError:  # the store's process is gone
                votes = None
        return None

    def _agree(self, votes: StopVotes, number: int, end: float) -> bool:
        """Agree with the other processes on the batch behind which all stop.

        Returns:
            Whether they have all answered, if they could.
        """
        end = min(end, time.monotonic() + _VOTES_WITHIN_S)
        try:
            self._number = votes.ask(number)
            # Since `request_stop` each batch is followed by a look, the running one
            # included.
            votes.vote(self._run.progress.total_batches + 1)
            while (batch := votes.result()) is None:
                if self._is_over:
                    return True
                if time.monotonic() > end:
                    return False
                time.sleep(_VOTES_EVERY_S)
        except RuntimeError:  # the store's process is gone
            return False
        self._last_batch = batch
        _release(self._agreed)
        return True


@contextmanager
def stopping_when_asked(trainer: Trainer, run: Run) -> Iterator[None]:
    """Let signals end the fit inside at its next safe point, its state being saved.

    `SIGTERMException` is raised then, or `KeyboardInterrupt` after Ctrl-C. A handler that
    the program has installed is called as well; one for Ctrl-C stays alone. Of several
    processes all stop if one gets a signal. Left to the system's way are: signals that the
    program ignores; a fit outside of the main thread; and where nothing is kept, Ctrl-C
    and fits in several processes.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    keeps = bool(trainer.checkpoint_callbacks) and not trainer.fast_dev_run
    alone = trainer.world_size == 1
    if trainer.state.fn != "fit" or not in_main_thread or not (alone or keeps):
        yield
        return
    former = _former_handlers(trainer, keeps)
    with StopRequest(trainer, run, former).listening():
        yield


def settings_of(trainer: Trainer) -> Preemption:
    """Return the trainer's `Preemption` callback, or its defaults."""
    given = (each for each in trainer.callbacks if isinstance(each, Preemption))
    return next(given, Preemption())


def requeue_if_due(trainer: Trainer, error: BaseException | None) -> None:
    """Have SLURM start the job again, if it is a job's warning that has ended the fit."""
    warning = slurm.requeue_signal(trainer.strategy.cluster_environment)
    warned = isinstance(error, SIGTERMException) and (
        error.signal == warning and trainer.is_global_zero
    )
    if not warned or not settings_of(trainer).requeue or slurm.batch_job() is None:
        return
    if has_left_state(trainer):
        slurm.requeue()
        return
    rank_zero_warn(
        "The job stays out of the queue of SLURM: nothing was saved that a fit in it could "
        "go on from. A `ModelCheckpoint` keeps the state of a fit that is stopped."
    )


def _former_handlers(trainer: Trainer, keeps: bool) -> dict[int, Any]:
    """Return what handles each signal that is ours to handle."""
    numbers = settings_of(trainer).numbers
    warning = slurm.requeue_signal(trainer.strategy.cluster_environment)
    if warning not in (None, getattr(signal, "SIGUSR1", None)):
        numbers.append(warning)  # which somebody has asked for
    handlers = {n: signal.getsignal(n) for n in numbers}
    # None: installed by something other than Python.
    former = {n: h for n, h in handlers.items() if h not in (None, signal.SIG_IGN)}
    handler: Any = signal.getsignal(signal.SIGINT)
    if keeps and handler is signal.default_int_handler:
        former[signal.SIGINT] = handler
    return former


def _error(number: int) -> BaseException:
    if number == signal.SIGINT:
        return KeyboardInterrupt()
    return SIGTERMException(number)


def _name(number: int) -> str:
    return signal.Signals(number).name


def _announce(number: int) -> None:
    if rank_zero_only.rank != 0:
        return
    text = f"{_name(number)}: stopping after the running batch"
    if number == signal.SIGINT:
        # The terminal has echoed ^C in the middle of a line. torchrun makes a SIGTERM of
        # the second one.
        again = (
            ""
            if "TORCHELASTIC_RUN_ID" in os.environ
            else "; Ctrl-C again stops at once"
        )
        text = f"\nStopping after the running batch{again}"
    with suppress(OSError):
        os.write(2, f"{text}\n".encode())  # streams of Python's may be in use just now


def _release(lock: threading.Lock) -> None:
    if lock.locked():
        lock.release()
