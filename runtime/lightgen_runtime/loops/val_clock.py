"""Validation by the clock: how much time has passed, and when to look again."""

from __future__ import annotations

from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightgen_runtime.strategies import Strategy

# So many batches pass at the most without a look, whatever the pace was before.
MOST_BATCHES = 100


class ValidationClock:
    """Tells when validation is due by time, looking as seldom as it can.

    After each look the next one is due when, at the pace seen so far, half of the time
    that remains will have passed. The first process looks and decides for all.

    Attributes:
        interval: Time between two validations.
        next_look: The batch, counted over the whole fit, to look after.
    """

    def __init__(
        self, interval: timedelta, strategy: Strategy, total_batches: int
    ) -> None:
        self.interval = interval
        self._strategy = strategy
        self.restart(total_batches)

    def restart(self, total_batches: int) -> None:
        """Count from now on, as after a validation.

        Args:
            total_batches: Batches done in the whole fit.
        """
        self._began = self._looked = monotonic()
        self._batches = total_batches
        self.next_look = total_batches + 1

    def due(self, total_batches: int) -> bool:
        """Tell whether validation is due after this batch.

        Cost: nothing before `next_look`; then, with several processes, one message.
        """
        if total_batches < self.next_look:
            return False
        due, wait = self._strategy.broadcast(self._look(total_batches))
        self.next_look = total_batches + wait
        return bool(due)

    def _look(self, total_batches: int) -> tuple[bool, int]:
        now = monotonic()
        pace = (now - self._looked) / max(1, total_batches - self._batches)
        self._looked, self._batches = now, total_batches
        remaining = self.interval.total_seconds() - (now - self._began)
        if remaining <= 0 or pace <= 0:
            return remaining <= 0, 1
        return False, max(1, min(MOST_BATCHES, int(remaining / pace / 2)))
