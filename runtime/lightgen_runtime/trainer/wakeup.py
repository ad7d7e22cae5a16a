"""Learning of a signal at once, even while the main thread is busy outside of Python.

Python runs a signal's handler between two of its own instructions, which a hung
collective never comes to. The number of the signal is written to a socket before.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from contextlib import suppress

# A thread that talks to the other processes may be held up by one that is gone.
_LONGEST_END_S = 1.0

_ours: set[int] = set()  # descriptors that signals are written to


class Wakeup:
    """The numbers of the signals that arrive, for one thread that waits for them.

    To be opened and closed in the main thread. Whoever was told of signals before, such
    as an event loop, still is.
    """

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._number = self._writer.fileno()
        _ours.add(self._number)
        self._former = signal.set_wakeup_fd(self._number, warn_on_full_buffer=False)

    def note(self, number: int) -> None:
        """Wake whoever waits; a handler may call this, in case others took our place."""
        with suppress(OSError):
            self._writer.send(bytes([number]))

    def wait(self, timeout: float | None) -> bytes | None:
        """Return the numbers of signals that have arrived; nothing once it is closed.

        Args:
            timeout: Seconds to wait; None waits for ever.

        Returns:
            One byte a signal; None if none has come in time.
        """
        self._reader.settimeout(timeout)
        try:
            numbers = self._reader.recv(64)
        except TimeoutError:
            return None
        if self._former != -1:
            with suppress(OSError):
                os.write(self._former, numbers)
        return numbers

    def close(self, waiting: threading.Thread) -> None:
        """Let signals go where they went before, and the waiting thread end.

        Args:
            waiting: That thread.
        """
        signal.set_wakeup_fd(self._former)
        _ours.discard(self._number)
        self._writer.close()
        waiting.join(_LONGEST_END_S)
        self._reader.close()


def _leave_to_parent() -> None:
    """Keep what signals a forked process from looking like a signal to its parent."""
    if not _ours:
        return
    with suppress(ValueError):
        if (former := signal.set_wakeup_fd(-1)) not in _ours:
            signal.set_wakeup_fd(former)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
