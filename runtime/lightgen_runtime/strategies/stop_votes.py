"""Agreeing, without a collective in any step, behind which batch all processes stop.

One process asks. Each answers with a batch that it has not passed and behind which it is
sure to look; the largest answer is one that all of them reach. They talk through the
store that made them find each other, from a thread, because the training may itself be
waiting for another process.
"""

from __future__ import annotations

from itertools import count
from typing import Any

_fits = count()  # the same in all processes, which run the same fits


class StopVotes:
    """One fit's votes; for one thread.

    Args:
        store: A connection of its own to the processes' store.
        rank: This process.
        world_size: How many there are.
    """

    def __init__(self, store: Any, rank: int, world_size: int) -> None:
        self._store, self._rank = store, rank
        prefix = f"lightgen/stop/{next(_fits)}"
        self._request = f"{prefix}/signal"
        self._ballots = [f"{prefix}/{rank}" for rank in range(world_size)]

    def ask(self, signal: int) -> int:
        """Ask all processes to stop; return the signal for which it was first asked."""
        return int(self._store.compare_set(self._request, "", str(signal)))

    def asked(self) -> int | None:
        """Return the signal for which some process asks to stop, if one does."""
        if not self._store.check([self._request]):
            return None
        return int(self._store.get(self._request))

    def vote(self, batch: int) -> None:
        """Answer that this process will look behind `batch`."""
        self._store.set(self._ballots[self._rank], str(batch))

    def result(self) -> int | None:
        """Return the batch behind which all stop, once every process has answered."""
        if not self._store.check(self._ballots):
            return None
        return max(int(self._store.get(ballot)) for ballot in self._ballots)
