"""From a loader to the batches of one pass: counted, limited, on the device.

Owns where a pass stands in its loader. Which loader, and how many batches of it, is
decided in `loops/source.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import torch

from lightgen_runtime.loops.position import Part, reader_of
from lightgen_runtime.loops.samplers import (
    generators_of,
    loaders_of,
    set_generators,
)
from lightgen_runtime.loops.share import whole_of
from lightgen_runtime.utilities.combined_loader import CombinedLoader
from lightgen_runtime.utilities.exceptions import (
    EmptyDataError,
    MisconfigurationException,
)
from lightgen_runtime.utilities.rank_zero import rank_zero_warn

if TYPE_CHECKING:
    from lightgen_runtime.strategies import Strategy

Transfer = Callable[[Any, int], Any]

_NOTHING = object()
_PLAIN = (torch.Tensor, str, bytes, bool, int, float, complex, type(None))


class Feed:
    """One loader as the loops see it.

    Attributes:
        loader: Any iterable of batches.
        num_batches: How many a pass yields at the most; infinity when only exhaustion
            tells.
        sized: Whether `num_batches` is what a pass yields.
        dataloader_idx: Its position among the stage's loaders.
        required: Whether a first pass without a batch is an error.
        is_share: Whether other processes have the loader's other batches, in turn.
        given: The loader of all processes' data.
        first: Number in the epoch of the loader's first batch.
    """

    __slots__ = (
        "_ahead",
        "_before",
        "_current",
        "_number",
        "_read",
        "_readers",
        "_restored",
        "_taken",
        "_together",
        "_transfer",
        "_whole",
        "dataloader_idx",
        "first",
        "given",
        "is_share",
        "loader",
        "num_batches",
        "required",
        "sized",
    )

    def __init__(
        self,
        loader: Any,
        num_batches: int | float,
        transfer: Transfer | None,
        dataloader_idx: int = 0,
        sized: bool = True,
        required: bool = False,
        is_share: bool = False,
    ) -> None:
        self.loader = loader
        self.num_batches = num_batches
        self.sized = sized and num_batches != float("inf")
        self.dataloader_idx = dataloader_idx
        self.required = required
        self.is_share = is_share
        self.given = loader
        self.first = 0
        self._whole: tuple[Any, int | float, bool] | None = None
        self._transfer = transfer
        self._together: Strategy | None = None
        self._read: Any = None  # the loader that `_readers` read
        self._readers: list[Any] = []
        self._restored: dict[str, Any] | None = None
        self._current: Any = _NOTHING  # given to the loops last, with its number
        self._number = -1
        self._ahead: Any = _NOTHING  # read, and not given to the loops yet
        # States of readers before they read that, where a checkpoint cannot hold it.
        self._before: list[Any] | None = None
        self._taken = 0

    def read_together(self, strategy: Strategy) -> None:
        """Yield as many batches as in the other processes from now on.

        Collective: every process calls it. A length costs nothing more; without one,
        processes ask each other for each batch whether all of them have it.

        Compat: Lightning waits for the process that has ended before the others.
        """
        if strategy.world_size == 1:
            return
        own = torch.tensor([self.num_batches, self.sized], dtype=torch.float64)
        lengths, sized = strategy.all_gather(own).T.tolist()
        self.sized = all(sized)
        if (fewest := min(lengths)) < self.num_batches:
            self.num_batches = int(fewest)
        self._together = strategy
        if self.sized and self.num_batches != max(lengths):
            by_rank = [int(length) for length in lengths]
            rank_zero_warn(
                f"processes have different numbers of training batches, {by_rank} by "
                f"rank: each epoch ends for all of them after {self.num_batches}"
            )

    def read_rest(self, loader: Any, first: int, anew: bool) -> None:
        """Read what is left of the epoch from another loader, until `read_whole`.

        Args:
            loader: Has a length.
            first: Number of its first batch in the epoch.
            anew: Forget what `restore` was told, which is of the former loader.
        """
        self._whole = self.loader, self.num_batches, self.sized
        self.loader, self.first = loader, first
        self.num_batches, self.sized = first + len(loader), True
        if anew:
            self._restored = None

    def read_whole(self) -> None:
        """Let passes be of all of the data again."""
        if self._whole is not None:
            self.loader, self.num_batches, self.sized = self._whole
            self._whole, self.first = None, 0

    @property
    def epoch_batches(self) -> int | float:
        """How many batches an epoch has that is not the rest of an interrupted one."""
        return self.num_batches if self._whole is None else self._whole[1]

    @property
    def takes_part(self) -> bool:
        """Whether a pass has a batch, in this process or in another one."""
        return self.num_batches != 0 or self.is_share

    def limited_to(self, num_batches: int | float) -> Feed:
        """Return a feed of the same loader that stops earlier."""
        fewer = min(self.num_batches, num_batches)
        return Feed(
            self.loader,
            fewer,
            self._transfer,
            self.dataloader_idx,
            self.sized,
            is_share=self.is_share,
        )

    def has_given(self, number: int) -> bool:
        """Tell whether the running pass has given the loops its batch `number`."""
        return self._number >= number

    def generators(self) -> list[torch.Generator]:
        """Return the random generators that the loader and its samplers own."""
        return generators_of(self.loader)

    def open(self, skip: int = 0) -> Iterator[Any]:
        """Start a pass behind the epoch's first `skip` batches.

        After `restore`, random states are to be those with which the pass once began;
        they are others afterwards. Without it, the first batches are drawn and dropped.
        """
        restored, self._restored = self._restored, None
        skip -= self.first
        self.end_pass()
        readers = self._current_readers()
        if restored is not None:
            self._taken = skip + len(restored["read"])
            for reader, state in zip(readers, restored["readers"], strict=True):
                reader.restore(state, in_pass=self._taken > 0)
        if isinstance(self.loader, CombinedLoader):
            combined = CombinedLoader(self.loader.rebuilt(readers), self.loader.mode)
            iterator = self._counted_out(combined)
        else:
            iterator = readers[0].open(self._taken)
        if restored is None:
            for _ in range(skip):
                next(iterator, None)
            return iterator
        return chain(restored["read"], iterator) if restored["read"] else iterator

    def state(self, taken: int | None) -> dict[str, Any]:
        """Return where reading stands, for `restore`.

        Args:
            taken: Batches that the loops are done with in the running pass; None
                between passes.
        """
        if self._restored is not None:  # nothing has been read since
            return self._restored
        read: list[Any] = []
        if taken is not None:
            in_work = [self._current] if taken == self._number else []
            read = [b for b in [*in_work, self._ahead] if b is not _NOTHING]
            if not all(map(_is_plain, read)):
                read = []
        delivered = None if taken is None else taken + len(read) - self.first
        back = None if taken is None else self._taken - taken - len(read)
        state: dict[str, Any] = {"read": read}
        state["readers"] = self._before or [
            reader.state(back if isinstance(reader, Part) else delivered)
            for reader in self._current_readers()
        ]
        state["generators"] = [g.get_state() for g in self.generators()]
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Let the next pass begin where the state was taken.

        Raises:
            TypeError: The state is none.
        """
        kinds = [state["read"], state["readers"], state["generators"]]
        parts = [part for part in state["readers"] if not isinstance(part, dict)]
        if parts or not all(isinstance(part, list) for part in kinds):
            raise TypeError(f"no position in {type(self.loader).__name__}")
        if len(state["readers"]) == len(self._current_readers()):
            self._restored = state
            set_generators(self.loader, state["generators"])

    @property
    def begins_inside(self) -> bool:
        """Whether the next pass goes on with a batch that a former process had read."""
        return bool(self._restored and self._restored["read"])

    def finish(self) -> None:
        """Leave the pass of a restored state, all of which had been read."""
        restored, self._restored = self._restored, None
        if restored is not None:
            readers = self._current_readers()
            for reader, state in zip(readers, restored["readers"], strict=True):
                reader.restore(state, in_pass=False)
                reader.finish()

    def end_pass(self) -> None:
        """Note that the running pass is over."""
        self._current = self._ahead = _NOTHING
        self._before, self._number, self._taken = None, -1, 0
        for reader in self._current_readers():
            reader.end_pass()

    def _current_readers(self) -> list[Any]:
        if self._read is not self.loader:
            self._read = self.loader
            self._readers = [reader_of(each) for each in loaders_of(self.loader)]
            if isinstance(self.loader, CombinedLoader):
                self._readers = [Part(reader) for reader in self._readers]
        return self._readers

    def _counted_out(self, combined: CombinedLoader) -> Iterator[Any]:
        for batch, _, _ in combined:
            self._taken += 1
            yield batch

    def batches(
        self, iterator: Iterator[Any], start: int = 0
    ) -> Iterator[tuple[int, Any, bool]]:
        """Yield (batch_idx, batch on the device, whether it is the last).

        Args:
            iterator: From `open`.
            start: Number of the first batch.
        """
        if self.sized:
            return self._counted(iterator, start, int(self.num_batches))
        if self.num_batches != float("inf"):
            iterator = islice(iterator, int(self.num_batches) - start)
        if self._together is not None:
            iterator = self._while_all_have_one(iterator, self._together)
        return self._until_exhausted(iterator, start)

    def _while_all_have_one(
        self, iterator: Iterator[Any], strategy: Strategy
    ) -> Iterator[Any]:
        end, processes = object(), strategy.world_size
        while True:
            batch = next(iterator, end)
            having = torch.tensor(int(batch is not end))
            others = processes - int(strategy.reduce(having, reduce_op="sum"))
            if not others:
                yield batch
                continue
            if others < processes:
                rank_zero_warn(
                    f"{type(self.loader).__name__} has no further batch in {others} of "
                    f"{processes} processes: the epoch ends for all of them, and what "
                    "the others still have is left out. Yield as much in every process."
                )
            return

    def borrowed(self) -> Any:
        """Return a batch of another process, on this one's device.

        Raises:
            EmptyDataError: Which data other processes have is not known here.
        """
        if not self.is_share or isinstance(self.loader, CombinedLoader):
            raise EmptyDataError(
                f"{type(self.loader).__name__} yielded no batch in this process, and "
                "others have some, which all processes compute together. Give every "
                "process a batch at least."
            )
        batch = next(iter(whole_of(self.loader)))
        transfer = self._transfer
        return batch if transfer is None else transfer(batch, self.dataloader_idx)

    def _counted(
        self, iterator: Iterator[Any], start: int, num_batches: int
    ) -> Iterator[tuple[int, Any, bool]]:
        transfer, dataloader_idx = self._transfer, self.dataloader_idx
        last = num_batches - 1
        for batch_idx in range(start, num_batches):
            try:
                batch = next(iterator)
            except StopIteration:
                self._tell_of_wrong_length(num_batches, batch_idx)
                return
            self._current, self._number = batch, batch_idx
            if transfer is not None:
                batch = transfer(batch, dataloader_idx)
            yield batch_idx, batch, batch_idx == last

    def _until_exhausted(
        self, iterator: Iterator[Any], start: int
    ) -> Iterator[tuple[int, Any, bool]]:
        # One batch ahead: without a length, only that tells which batch is the last.
        transfer, dataloader_idx = self._transfer, self.dataloader_idx
        self._ahead = next(iterator, _NOTHING)
        batch_idx, readers = start, self._current_readers()
        if self._ahead is _NOTHING and start == 0 and self.num_batches != 0:
            self._tell_of_nothing()
        while self._ahead is not _NOTHING:
            batch = self._current = self._ahead
            self._number = batch_idx
            if not _is_plain(batch):
                self._before = [reader.state(batch_idx + 1) for reader in readers]
            self._ahead = next(iterator, _NOTHING)
            if self._ahead is _NOTHING:
                self._before = None
            if transfer is not None:
                batch = transfer(batch, dataloader_idx)
            yield batch_idx, batch, self._ahead is _NOTHING
            batch_idx += 1
        self.required = False  # what was there once may be used up

    def _tell_of_wrong_length(self, length: int, ended: int) -> None:
        wrong = (
            f"{type(self.loader).__name__} has a length of {length} batches but ended "
            f"after {ended}: nothing that is due at an epoch's last batch (validation, "
            "schedulers, the last accumulated step) was done. Correct its `__len__`."
        )
        if self._together is not None:  # for whom the other processes would wait
            raise MisconfigurationException(wrong)
        rank_zero_warn(wrong)

    def _tell_of_nothing(self) -> None:
        nothing = (
            f"{type(self.loader).__name__} yielded no batch. A generator or iterator can "
            "be read once only: give something that starts anew, such as a `DataLoader`. "
            "Else check that its dataset yields anything in this process."
        )
        if self.required:
            raise EmptyDataError(nothing)
        rank_zero_warn(nothing)


def _is_plain(batch: Any) -> bool:
    """Tell whether a batch comes out of a checkpoint as it went in."""
    if type(batch) is dict:
        return all(map(_is_plain, batch)) and all(map(_is_plain, batch.values()))
    if type(batch) in (list, tuple):
        return all(map(_is_plain, batch))
    return type(batch) in _PLAIN
