"""What a fit does when its process is asked to terminate."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from lightgen_runtime.utilities.exceptions import SIGTERMException

if TYPE_CHECKING:
    from lightgen_runtime.trainer.trainer import Trainer


@contextmanager
def terminating_between_batches(trainer: Trainer) -> Iterator[None]:
    """Let SIGTERM end the fit inside, but only when the running batch is done.

    Then `SIGTERMException` is raised, so that callbacks can save what there is. A handler
    that the program has installed is called as well. Several processes, which would have
    to agree on the batch, are left to the system's own way; so is a fit outside of the
    main thread, and a program that ignores the signal.
    """
    former = signal.getsignal(signal.SIGTERM)
    in_main_thread = threading.current_thread() is threading.main_thread()
    ours = former is not None and former is not signal.SIG_IGN
    fits_alone = trainer.state.fn == "fit" and trainer.world_size == 1
    if not (ours and in_main_thread and fits_alone):
        yield
        return

    def note(number: int, frame: FrameType | None) -> None:
        trainer.received_sigterm = True
        if callable(former):
            former(number, frame)

    signal.signal(signal.SIGTERM, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
    if trainer.received_sigterm:
        raise SIGTERMException  # it came when no batch was left
