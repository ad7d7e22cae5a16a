"""How far a fit has come: the only counters that change while it runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from lightgen_runtime.io.schema import EPOCH_END, EPOCH_START, SETTLED, STOPPED


@dataclass(slots=True)
class Progress:
    """Counters of one fit.

    Attributes:
        current_epoch: Epochs completed, which is the 0-based number of the running one.
        global_step: Optimizer steps taken.
        batch_idx: Batches completed in the running epoch.
        total_batches: Batches completed in all epochs.
        batches_that_stepped: Batches, in all epochs, at which an accumulation window
            closed; the step axis of loggers. One a batch however many optimizers step.
        is_last_batch: Whether the last completed batch was the epoch's last.
        phase: Where in an epoch it stands, one of the positions in `io/schema.py`.
        evaluated: Batches evaluated so far, by stage and loader; the step axis of what
            evaluation steps log one by one.
    """

    current_epoch: int = 0
    global_step: int = 0
    batch_idx: int = 0
    total_batches: int = 0
    batches_that_stepped: int = 0
    is_last_batch: bool = False
    phase: int = EPOCH_START
    evaluated: dict[str, int] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Any]:
        """Return the counters as plain data."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take counters back."""
        for name in self.__slots__:
            if name in state:
                setattr(self, name, type(getattr(self, name))(state[name]))

    def count_evaluated(self, stage: str, dataloader_idx: int) -> int:
        """Count one evaluated batch; return how many came before it."""
        key = f"{stage}/{dataloader_idx}"
        before = self.evaluated.get(key, 0)
        self.evaluated[key] = before + 1
        return before

    def start_next_epoch(self) -> None:
        """Count the running epoch as completed."""
        self.current_epoch += 1
        self.restart_epoch()

    def stop_inside_epoch(self) -> None:
        """Count the running epoch as completed, but remember where in it the fit ended."""
        self.current_epoch += 1
        self.phase = STOPPED

    def reopen_epoch(self) -> None:
        """Go back into an epoch that a former fit ended early."""
        if self.phase == STOPPED:
            self.current_epoch -= 1
        if self.phase in (STOPPED, EPOCH_END) and not self.is_last_batch:
            self.phase = SETTLED

    @property
    def is_inside_epoch(self) -> bool:
        """Whether batches of the running epoch are done, and others are not."""
        return self.batch_idx > 0 and not self.is_last_batch

    @property
    def epochs_done(self) -> int:
        """Epochs whose last batch is done; what is due then may still be to do."""
        over = self.is_last_batch and self.phase not in (EPOCH_START, STOPPED)
        return self.current_epoch + over

    def restart_epoch(self) -> None:
        """Go back to the start of the running epoch, as after an interrupted fit."""
        self.batch_idx = 0
        self.is_last_batch = False
        self.phase = EPOCH_START


@dataclass(slots=True)
class ValidationPosition:
    """How far a validation inside a fit has come.

    Attributes:
        loader: Number of the loader that is read, or read next.
        batches: Batches of it that are done, or whose step has begun.
        settled: Whether what the last of them logged has been reported.
        ended: Whether all loaders are read and the epoch's end was announced.
        rng: Random states when the loader was opened; None if it was not.
    """

    loader: int = 0
    batches: int = 0
    settled: bool = True
    ended: bool = False
    rng: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the position as plain data."""
        return {name: getattr(self, name) for name in self.__slots__}

    def next_loader(self) -> None:
        """Go on behind a loader that is read."""
        self.loader += 1
        self.batches, self.rng = 0, None
