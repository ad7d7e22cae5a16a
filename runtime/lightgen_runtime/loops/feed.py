"""From a loader to the batches of one pass: counted, limited, on the device.

Owns where a pass stands in its loader. Which loader, and how many batches of it, is
decided in `loops/source.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from lightgen_runtime.utilities.combined_loader import CombinedLoader

Transfer = Callable[[Any, int], Any]


class Feed:
    """One loader as the loops see it.

    Attributes:
        loader: Any iterable of batches.
        num_batches: How many a pass yields; infinity when only exhaustion tells.
        dataloader_idx: Its position among the stage's loaders.
    """

    __slots__ = ("_transfer", "dataloader_idx", "loader", "num_batches")

    def __init__(
        self,
        loader: Any,
        num_batches: int | float,
        transfer: Transfer | None,
        dataloader_idx: int = 0,
    ) -> None:
        self.loader = loader
        self.num_batches = num_batches
        self.dataloader_idx = dataloader_idx
        self._transfer = transfer

    def limited_to(self, num_batches: int | float) -> Feed:
        """Return a feed of the same loader that stops earlier."""
        fewer = min(self.num_batches, num_batches)
        return Feed(self.loader, fewer, self._transfer, self.dataloader_idx)

    def open(self, skip: int = 0) -> Iterator[Any]:
        """Start a pass behind its first `skip` batches.

        The skipped ones are drawn and dropped, so that samplers and workers stand where
        they stood when a pass without interruption got there.
        """
        iterator: Iterator[Any] = iter(self.loader)
        if isinstance(self.loader, CombinedLoader):
            iterator = (batch for batch, _, _ in iterator)
        for _ in range(skip):
            next(iterator, None)
        return iterator

    def batches(
        self, iterator: Iterator[Any], start: int = 0
    ) -> Iterator[tuple[int, Any, bool]]:
        """Yield (batch_idx, batch on the device, whether it is the last).

        Args:
            iterator: From `open`.
            start: Number of the first batch.
        """
        if isinstance(self.num_batches, int):
            return self._counted(iterator, start, self.num_batches)
        return self._until_exhausted(iterator, start)

    def _counted(
        self, iterator: Iterator[Any], start: int, num_batches: int
    ) -> Iterator[tuple[int, Any, bool]]:
        transfer, dataloader_idx = self._transfer, self.dataloader_idx
        last = num_batches - 1
        for batch_idx in range(start, num_batches):
            try:
                batch = next(iterator)
            except StopIteration:
                # The loader promised more by its length than it holds.
                return
            if transfer is not None:
                batch = transfer(batch, dataloader_idx)
            yield batch_idx, batch, batch_idx == last

    def _until_exhausted(
        self, iterator: Iterator[Any], start: int
    ) -> Iterator[tuple[int, Any, bool]]:
        # One batch ahead: without a length, only that tells which batch is the last.
        transfer, dataloader_idx = self._transfer, self.dataloader_idx
        end = object()
        batch_idx, ahead = start, next(iterator, end)
        while ahead is not end:
            batch, ahead = ahead, next(iterator, end)
            if transfer is not None:
                batch = transfer(batch, dataloader_idx)
            yield batch_idx, batch, ahead is end
            batch_idx += 1
