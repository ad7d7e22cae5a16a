"""What a prediction collects: its results, and which samples they belong to."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from copy import copy
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader, IterableDataset

from lightgen_runtime.utilities.in_turn import in_turn
from lightgen_runtime.utilities.rank_zero import rank_zero_warn

if TYPE_CHECKING:
    from lightgen_runtime.loops.feed import Feed
    from lightgen_runtime.strategies import Strategy


class Predicted:
    """Results and sample numbers of one prediction, as far as it has come.

    Attributes:
        results: For each loader, what `predict_step` returned for each batch.
        epoch_batch_indices: For each loader, the sample numbers of each batch; nothing
            for a loader whose samples have no numbers.
        current_batch_indices: The sample numbers of the running batch.
        shares: For each loader, whether other processes have its other batches, in turn.

    Compat: `predictions` and both lists of indices are named as in Lightning's
    `trainer.predict_loop`.
    """

    def __init__(self) -> None:
        self.results: list[list[Any]] = []
        self.epoch_batch_indices: list[list[list[int]]] = []
        self.current_batch_indices: list[int] = []
        self.shares: list[bool] = []
        self._seen: deque[list[int]] | None = None

    @property
    def predictions(self) -> list[Any]:
        """Results by batch; with several loaders, a list of such lists."""
        return self.results[0] if len(self.results) == 1 else self.results

    def of_all_processes(self, strategy: Strategy) -> list[Any]:
        """Return `predictions` of all processes together, in the data's order.

        Collective: every process calls it. Of a loader that is not shared out, all have
        predicted the same, unless the user's own code has split it: a warning says so.
        """
        by_rank: list[list[list[Any]]] = strategy.gather_objects(
            self.results, strategy.data_group
        )
        if len(by_rank) > 1 and not all(self.shares):
            rank_zero_warn(
                '`predict(return_predictions="all")` with a loader that the trainer has not '
                "split: process 0's predictions are returned for it, as if every process "
                "read the same. Where your own code splits the data, collect predictions in "
                "`on_predict_batch_end` and put them together in `on_predict_epoch_end`, by "
                "`self.gather_in_order`."
            )
        merged = []
        for number, is_share in enumerate(self.shares):
            parts = [results[number] for results in by_rank]
            merged.append(in_turn(parts) if is_share else parts[0])
        return merged[0] if len(merged) == 1 else merged

    def open(self, feed: Feed, record: bool) -> Iterator[Any]:
        """Start a pass over the next loader.

        Args:
            feed: The loader's.
            record: Whether to find out sample numbers.
        """
        self.results.append([])
        self.epoch_batch_indices.append([])
        self.shares.append(feed.is_share)
        if not record:
            return feed.open()
        loader, self._seen = _with_recorded_indices(feed.loader)
        return iter(loader)

    def note_indices(self) -> None:
        """Make the next batch's sample numbers the current ones."""
        self.current_batch_indices = self._seen.popleft() if self._seen else []
        if self._seen is not None:
            self.epoch_batch_indices[-1].append(self.current_batch_indices)


class _RecordingSampler:
    """Passes on what a batch sampler yields, and keeps it for whoever gets the batch."""

    def __init__(self, sampler: Iterable[list[int]], seen: deque[list[int]]) -> None:
        self._sampler = sampler
        self._seen = seen

    def __iter__(self) -> Iterator[list[int]]:
        for indices in self._sampler:
            self._seen.append(list(indices))
            yield indices

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sampler, name)


def _with_recorded_indices(loader: Any) -> tuple[Any, deque[list[int]] | None]:
    """Return a loader of the same batches that tells their sample numbers.

    Args:
        loader: Any iterable of batches; it stays as it is.

    Returns:
        The loader, and a queue from which each batch takes its numbers; None if the
        samples have none or batches may come in another order.
    """
    if (
        not isinstance(loader, DataLoader)
        or isinstance(loader.dataset, IterableDataset)
        or loader.batch_sampler is None
        or not getattr(loader, "in_order", True)
    ):
        return loader, None
    seen: deque[list[int]] = deque()
    recording = copy(loader)
    # Around the loader's guard against assigning another sampler, which protects
    # arguments that were derived from it; none of them changes here.
    recording.__dict__["batch_sampler"] = _RecordingSampler(loader.batch_sampler, seen)
    return recording, seen
