"""How a fit ends when its process is asked to: settings only, for the trainer to read."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from lightgen_runtime.callbacks.callback import Callback
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.nearest import did_you_mean

# By a scheduler's end of a job, and by SLURM's `--signal=USR1@60` some time before it.
DEFAULT_SIGNALS = ("SIGTERM", "SIGUSR1")
DEFAULT_DEADLINE_S = 30.0
_NOT_CATCHABLE = ("SIGKILL", "SIGSTOP")


class Preemption(Callback):
    """Set how a fit saves and stops when its process gets a signal.

    Every fit does so as these defaults say; the callback is there to change them. A
    signal ends the fit at the next safe point, after the running batch, with exit code
    128 + its number. A trainer with a `ModelCheckpoint` writes
    `interrupted-step=<n>.ckpt` into its folder first; a fit that resumes from that file
    replaces it, or removes it once there is a newer one. In a batch job of SLURM the file
    is `hpc_ckpt_<job>.ckpt` in `default_root_dir`, with a mark behind the number where
    the job has several fits, and the same fit of the job, started again, goes on from it.

    Ctrl-C does the same and ends with `KeyboardInterrupt`; a second one stops at once.

    Args:
        signals: Names of the signals; those that this system lacks do not count.
        deadline_s: Seconds until a safe point must be reached; after them the fit stops
            without saving. What the cluster grants between signal and kill is a bound.
        requeue: In a batch job of SLURM, put the job back into the queue after SIGUSR1.

    Raises:
        MisconfigurationException: No such signal, or none that a program can catch; or a
            deadline that is not positive.

    Compat: Lightning saves at a signal in SLURM jobs only.

    Example:
        >>> Preemption(deadline_s=120).signals
        ('SIGTERM', 'SIGUSR1')
    """

    def __init__(
        self,
        signals: Sequence[str] = DEFAULT_SIGNALS,
        deadline_s: float = DEFAULT_DEADLINE_S,
        requeue: bool = True,
    ) -> None:
        for name in signals:
            _check(name)
        if deadline_s <= 0:
            raise MisconfigurationException(
                f"`Preemption(deadline_s={deadline_s})`: seconds are needed, more than 0"
            )
        self.signals = tuple(signals)
        self.deadline_s = deadline_s
        self.requeue = requeue

    @property
    def numbers(self) -> list[int]:
        """The numbers of the signals that this system has."""
        known = signal.Signals.__members__
        return [int(known[name]) for name in self.signals if name in known]


def _check(name: str) -> None:
    known = [*signal.Signals.__members__, *DEFAULT_SIGNALS]
    if name not in known:
        raise MisconfigurationException(
            f"`Preemption(signals=...)`: {name!r} is no signal; accepted are names such as "
            f"'SIGTERM'.{did_you_mean(name, known)}"
        )
    if name in _NOT_CATCHABLE:
        raise MisconfigurationException(
            f"`Preemption(signals=...)`: no program can catch {name}"
        )
    if name == "SIGINT":
        raise MisconfigurationException(
            "`Preemption(signals=...)`: SIGINT is Ctrl-C, which saves and stops anyway"
        )
