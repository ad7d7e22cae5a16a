"""Where reading stands in a loader, and how it begins there again.

Of a loader that draws indices, the index batches before that position are drawn again and
no sample is loaded. A loader or dataset that keeps a state of its own is put back through
it. Anything else is read again from its start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sized
from copy import deepcopy
from itertools import islice
from typing import Any
from weakref import WeakKeyDictionary

from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from lightgen_runtime.io.content_check import reading
from lightgen_runtime.io.schema import OWN_KEY
from lightgen_runtime.loops import own_generators
from lightgen_runtime.loops.samplers import (
    generators_of,
    samplers_of,
    set_generators,
)
from lightgen_runtime.loops.share import draws_at_once, with_samplers
from lightgen_runtime.loops.worker_states import (
    SendingCollate,
    WorkerStart,
    WorkerStates,
)
from lightgen_runtime.utilities.rank_zero import rank_zero_warn
from lightgen_runtime.utilities.seed import collect_rng_states, set_rng_states

# They draw what is random when their iteration begins, or from a generator of their own.
_REPRODUCIBLE = (
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

# Loaders whose workers live on from pass to pass, with the copies that hold them.
_LIVE: WeakKeyDictionary[Any, tuple[Any, WorkerStates]] = WeakKeyDictionary()


class Reader:
    """Reads a loader pass by pass; this one begins again by reading.

    Attributes:
        loader: Any iterable of batches.
        begun: Random states when the running pass drew first, where that is recorded.
    """

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.begun: dict[str, Any] | None = None
        self._restored: dict[str, Any] = {}

    def open(self, skip: int = 0, records: bool = False) -> Iterator[Any]:
        """Start a pass behind its first `skip` batches.

        Args:
            skip: Batches that a former process had taken.
            records: Set `begun` when the pass first draws.
        """
        iterator: Iterator[Any] = iter(self.loader)
        in_memory = isinstance(self.loader, Sized) and hasattr(
            self.loader, "__getitem__"
        )
        if skip and not in_memory:
            rank_zero_warn(_told_of_replay(self.loader, skip))
        read = sum(1 for _ in islice(iterator, skip))
        if read < skip and iterator is self.loader:
            rank_zero_warn(
                f"{type(self.loader).__name__} ended after {read} of the {skip} batches "
                "that the checkpoint's run had taken: it cannot be read again. Give "
                "something that starts anew, such as a `DataLoader`."
            )
        return iterator

    def state(self, taken: int | None) -> dict[str, Any]:
        """Return what `restore` needs beyond the number of batches, as plain data.

        Args:
            taken: Batches taken of the running pass; None between passes.
        """
        return {}

    def restore(self, state: dict[str, Any], in_pass: bool) -> None:
        """Let the next pass begin as the state says; `in_pass`, in the middle of one."""
        self._restored = state

    def end_pass(self) -> None:
        """Note that the pass is over, and the next one begins at its start."""

    def finish(self) -> None:
        """Bring a restored loader behind the end of a pass whose last batch was taken."""


class StatefulReader(Reader):
    """Begins again through `load_state_dict`, of the loader or else of its dataset."""

    def __init__(self, loader: Any, owner: Any) -> None:
        super().__init__(loader)
        self._owner = owner

    def open(self, skip: int = 0, records: bool = False) -> Iterator[Any]:
        """See `Reader.open`; where to begin is told by `restore` alone."""
        return iter(self.loader)

    def state(self, taken: int | None) -> dict[str, Any]:
        """See `Reader.state`."""
        return {"state": deepcopy(self._owner.state_dict())}

    def restore(self, state: dict[str, Any], in_pass: bool) -> None:
        """See `Reader.restore`."""
        if "state" in state:
            self._owner.load_state_dict(state["state"])

    def finish(self) -> None:
        """See `Reader.finish`."""
        if self._owner is self.loader:
            next(iter(self.loader), None)


class IndexReader(Reader):
    """Begins again by drawing the former indices, without loading what they name."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        super().__init__(loader)
        self._samplers = [s for s in samplers_of(loader) if is_stateful(s)]
        self._at_start: list[Any] = []
        self._keeps = not _is_reproducible(indices_of(loader))
        self._indices: Indices | None = None
        self._own: list[Any] | None = (
            None  # generators of the dataset, once searched for
        )

    def open(self, skip: int = 0, records: bool = False) -> Iterator[Any]:
        """See `Reader.open`."""
        restored, self._restored, self._own = self._restored, {}, None
        moment = "samplers_at_start" if skip else "samplers"
        states = restored.get(moment, [])
        for sampler, state in zip(self._samplers, states, strict=False):
            sampler.load_state_dict(state)
        self._at_start = [deepcopy(s.state_dict()) for s in self._samplers]
        _tell_of_workers(self.loader, skip, restored)
        iterator = self._open(skip, records, restored)
        if skip and self._indices is not None and "last_indices" in restored:
            self._compare(skip, restored["last_indices"])
        return iterator

    def state(self, taken: int | None) -> dict[str, Any]:
        """See `Reader.state`."""
        state: dict[str, Any] = {}
        dataset = self.loader.dataset
        if self.loader.num_workers == 0 and is_stateful(dataset):
            state["dataset"] = deepcopy(dataset.state_dict())
        elif self.loader.num_workers == 0:
            if self._own is None:
                self._own = own_generators.generators_in(dataset)
            if self._own:
                state["drawn_by_dataset"] = own_generators.states_of(self._own)
        if self._samplers:
            state["samplers"] = [deepcopy(s.state_dict()) for s in self._samplers]
            state["samplers_at_start"] = self._at_start
        if taken and self._indices is not None:
            state["last_indices"] = self._indices.drawn_as(taken - 1)
        return state

    def end_pass(self) -> None:
        """See `Reader.end_pass`."""
        self._own = None  # the next pass may have others

    def restore(self, state: dict[str, Any], in_pass: bool) -> None:
        """See `Reader.restore`."""
        super().restore(state, in_pass)
        if "dataset" in state and is_stateful(self.loader.dataset):
            self.loader.dataset.load_state_dict(state["dataset"])
        if "drawn_by_dataset" in state:
            found = own_generators.generators_in(self.loader.dataset)
            with reading(f"{OWN_KEY}.loader", "ckpt_path"):
                own_generators.restore(found, state["drawn_by_dataset"])

    def _open(
        self, skip: int, records: bool, restored: dict[str, Any]
    ) -> Iterator[Any]:
        if not (skip or records or self._keeps):
            return iter(self.loader)
        indices = Indices(indices_of(self.loader), self if records else None)
        self._indices = indices if self._keeps else None
        if self._keeps:
            indices.keep(2)
        iterator = iter(drawing_by(self.loader, indices))
        if skip:
            if restored.get("begun"):
                set_random_states(self.loader, restored["begun"])
            indices.advance(skip)
        return iterator

    def _compare(self, skip: int, former: Any) -> None:
        assert self._indices is not None
        if self._indices.drawn_as(skip - 1) == former:
            return
        names = ", ".join(type(s).__name__ for s in samplers_of(self.loader))
        rank_zero_warn(
            f"the order of the training data is not the one of the run that is resumed: "
            f"batch {skip - 1} of the epoch had the indices {_short(former)}, and now "
            f"{_short(self._indices.drawn_as(skip - 1))}. Some samples of this epoch will "
            f"be read twice and some not at all. One of {names} draws from Python's, "
            "NumPy's or PyTorch's global generator while the epoch runs: let it draw all "
            "when its iteration begins, or from a `torch.Generator` in its attribute "
            "`generator`, or give it `state_dict` and `load_state_dict`."
        )


class WorkerReader(IndexReader):
    """Does as `IndexReader` for a loader with workers, whose random states go on too.

    Batch n comes from worker n mod W. So that each worker goes on in its own place, the
    first batch that is loaded again is one of worker 0; the up to W - 1 batches between it
    and the position are loaded and dropped.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        super().__init__(loader)
        self._persists = loader.persistent_workers
        self._workers = WorkerStates(loader.num_workers)
        self._opened = self._again = self._cut = False

    def _open(
        self, skip: int, records: bool, restored: dict[str, Any]
    ) -> Iterator[Any]:
        loader, number = self.loader, self.loader.num_workers
        saved = restored.get("workers")
        if saved is not None and len(saved) != number:
            saved = None
        live = _LIVE.get(loader)
        if live is not None and saved is None and not skip:
            copy, self._workers = live
            self._workers.end_pass()
            self._again = self._opened = True
            return self._workers.receive(iter(copy), 0)
        self._again = bool(restored.get("again" if skip else "opened", False))
        self._workers = WorkerStates(number)
        aligned = skip - skip % number
        starts = {}
        received = 0 if skip else restored.get("received", 0)
        cut = self._cuts(received) if received else restored.get("cut", False)
        if cut and skip < number:
            rank_zero_warn(
                f"the workers of {type(loader).__name__} persist, and a limit on the number "
                "of batches cut its pass short: random numbers drawn while loading are not "
                "those of the run that is resumed. Leave out the limit or "
                "`persistent_workers` to go on exactly."
            )
        if saved is not None and (skip or self._persists):
            starts = self._workers.restore(saved, aligned if skip else None)
        entry = random_states(loader) if self._again else None
        if restored and self._again and own_generators.generators_in(loader.dataset):
            rank_zero_warn(
                f"the workers of {type(loader).__name__} persist, and its dataset has "
                "random generators of its own, whose copies in the workers are out of "
                "reach: what they draw is not that of the run that is resumed. Draw from "
                "the global generators, or leave out `persistent_workers`, to go on exactly."
            )
        if skip and own_generators.generators_in(loader.dataset):
            # Copies of them are in the workers, out of reach: all is drawn again.
            aligned, starts = 0, {}
        owner = loader if self._again else None
        indices = Indices(indices_of(loader), None, aligned, entry, owner)
        if self._keeps:
            indices.keep(number * (loader.prefetch_factor or 1) + 2)
            self._indices = indices
        copy = drawing_by(loader, indices)
        vars(copy).update(
            collate_fn=SendingCollate(loader.collate_fn, always=self._persists),
            worker_init_fn=WorkerStart(loader.worker_init_fn, starts),
        )
        if self._persists:
            _LIVE[loader] = copy, self._workers
        self._opened = True
        iterator = self._workers.receive(iter(copy), aligned)
        for _ in islice(iterator, skip - aligned):
            pass
        return iterator

    def state(self, taken: int | None) -> dict[str, Any]:
        """See `Reader.state`."""
        state = super().state(taken)
        if taken or self._persists:
            state["workers"] = self._workers.state(taken)
        state["opened"] = self._persists and self._opened
        state["cut"] = self._persists and self._cut
        state["received"] = self._workers.received if self._persists else 0
        state["again"] = self._again
        return state

    def end_pass(self) -> None:
        """See `Reader.end_pass`."""
        super().end_pass()
        if self._workers.received:
            self._cut = self._cuts(self._workers.received)
        self._workers.end_pass()

    def _cuts(self, received: int) -> bool:
        """Tell whether a pass of that length left some of what workers had loaded."""
        indices = indices_of(self.loader)
        return isinstance(indices, Sized) and received < len(indices)


class Indices:
    """The index batches of a loader, of which the first ones may have been taken.

    Args:
        drawn: What draws them.
        note: The reader whose `begun` is set at the first draw.
        skip: How many to drop when a pass first draws; `advance` is for later.
        entry: Random states with which to draw first.
        loader: Whose generators `entry` holds.
    """

    def __init__(
        self,
        drawn: Iterable[Any],
        note: Reader | None = None,
        skip: int = 0,
        entry: dict[str, Any] | None = None,
        loader: Any = None,
    ) -> None:
        self.drawn = drawn
        self._note = note
        self._skip = skip
        self._entry = entry
        self._loader = loader
        self._iterator: Iterator[Any] = iter(())
        self._kept: deque[Any] | None = None
        self._count = 0

    def __len__(self) -> int:
        return len(self.drawn)  # type: ignore[arg-type]

    def keep(self, number: int) -> None:
        """Keep the last index batches, for `drawn_as`."""
        self._kept = deque(maxlen=number)

    def drawn_as(self, number: int) -> Any:
        """Return the index batch of that number in the pass; None if it is not kept."""
        place = number - self._count
        if self._kept is None or not -len(self._kept) <= place < 0:
            return None
        return as_data(self._kept[place])

    @property
    def drawing(self) -> Iterator[Any]:
        """What the running pass still draws."""
        return self._iterator

    def advance(self, skip: int) -> None:
        """Draw and drop."""
        for _ in islice(self._iterator, skip):
            pass

    def __iter__(self) -> Iterator[Any]:
        # Some samplers draw here already, others when they are asked for the first.
        iterator = None if self._entry is not None else iter(self.drawn)
        special = self._note is not None or self._skip or self._kept is not None
        if iterator is None or special:
            self._iterator = self._watched(iterator)
        else:
            self._iterator = iterator
        return self._iterator

    def _watched(self, iterator: Iterator[Any] | None) -> Iterator[Any]:
        self._count = 0
        if iterator is None:
            assert self._entry is not None
            set_random_states(self._loader, self._entry)
            self._entry = self._loader = None
            iterator = iter(self.drawn)
        if self._note is not None:
            self._note.begun = random_states(self._note.loader)
        skip, self._skip = self._skip, 0
        for number, batch in enumerate(iterator):
            self._count += 1
            if self._kept is not None:
                self._kept.append(batch)
            if number >= skip:
                yield batch


class Part:
    """One loader of a combination, which may be read several times in a pass of that."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._passes = 0
        self._taken = 0
        self._ended = False
        self._opened: dict[str, Any] | None = None
        self._ready: Iterator[Any] | None = None

    @property
    def was_read(self) -> bool:
        """Whether it has been read to its end in the combination's pass."""
        return self._passes > 1

    def __iter__(self) -> Iterator[Any]:
        ready, self._ready = self._ready, None
        if ready is not None:
            return ready
        self._passes += 1
        self._opened = random_states(self._reader.loader)
        return self._open(0)

    def _open(self, taken: int) -> Iterator[Any]:
        self._taken, self._ended = taken, False
        return self._counted(self._reader.open(taken, records=True))

    def _counted(self, iterator: Iterator[Any]) -> Iterator[Any]:
        for batch in iterator:
            self._taken += 1
            yield batch
        self._ended = True

    def state(self, back: int | None) -> dict[str, Any]:
        """Return where the part stands, or stood `back` batches ago; None between passes."""
        taken = None
        if back is not None:
            taken = max(0, self._taken - (0 if self._ended else back))
        return {
            "taken": taken,
            "passes": self._passes,
            "opened": self._opened,
            "begun": self._reader.begun,
            "reader": self._reader.state(taken),
        }

    def restore(self, state: dict[str, Any], in_pass: bool) -> None:
        """Begin where the state was taken; `in_pass`, in the middle of a pass."""
        self._reader.restore({**state["reader"], "begun": state["begun"]}, in_pass)
        if in_pass and state["opened"] is not None:
            self._passes, self._opened = state["passes"], state["opened"]
            self._reader.begun = state["begun"]
            set_random_states(self._reader.loader, state["opened"])
            self._ready = self._open(state["taken"])

    def end_pass(self) -> None:
        """Note that the combination's pass is over."""
        self._passes = 0
        self._reader.end_pass()

    def finish(self) -> None:
        """See `Reader.finish`."""
        self._reader.finish()


def reader_of(loader: Any) -> Reader:
    """Return what reads a loader and finds back to a position in the best way there is."""
    if is_stateful(loader):
        return StatefulReader(loader, loader)
    if not isinstance(loader, DataLoader) or has_own_iteration(type(loader)):
        return Reader(loader)
    workers = loader.num_workers
    if isinstance(loader.dataset, IterableDataset):
        if workers == 0 and is_stateful(loader.dataset):
            return StatefulReader(loader, loader.dataset)
        return Reader(loader)
    if workers == 0:
        return IndexReader(loader)
    # Workers that somebody else has started go on as they are.
    foreign = loader._iterator is not None
    return Reader(loader) if foreign or not loader.in_order else WorkerReader(loader)


def random_states(loader: Any) -> dict[str, Any]:
    """Return every random state that decides what comes next, a loader's included."""
    states = collect_rng_states()
    states["loader"] = [generator.get_state() for generator in generators_of(loader)]
    return states


def set_random_states(loader: Any, states: dict[str, Any]) -> None:
    """Put back what `random_states` found."""
    with reading(f"{OWN_KEY}.rng", "ckpt_path"):
        set_rng_states({key: value for key, value in states.items() if key != "loader"})
        set_generators(loader, states.get("loader", []))


def is_stateful(owner: Any) -> bool:
    """Tell whether a loader, dataset or sampler keeps its position by itself."""
    return all(
        callable(getattr(owner, name, None))
        for name in ("state_dict", "load_state_dict")
    )


def has_own_iteration(kind: type[DataLoader[Any]]) -> bool:
    """Tell whether a loader may yield other batches than those it loads."""
    names = ("__iter__", "_get_iterator")
    return any(getattr(kind, name) is not getattr(DataLoader, name) for name in names)


def _is_reproducible(drawn: Any) -> bool:
    if type(drawn) is BatchSampler:
        drawn = drawn.sampler
    return type(drawn) in _REPRODUCIBLE or draws_at_once(drawn)


def indices_of(loader: DataLoader[Any]) -> Any:
    """Return what draws a loader's indices, or its batches of them."""
    return loader.sampler if loader.batch_sampler is None else loader.batch_sampler


def drawing_by(loader: DataLoader[Any], indices: Indices) -> DataLoader[Any]:
    """Return a copy of a loader that draws what `indices` draws."""
    if loader.batch_sampler is None:
        return with_samplers(loader, indices, None)
    return with_samplers(loader, loader.sampler, indices)


def _tell_of_workers(loader: DataLoader[Any], skip: int, state: dict[str, Any]) -> None:
    former = len(state.get("workers", ()))
    if skip and former != loader.num_workers:
        rank_zero_warn(
            f"the checkpoint is of a run whose {type(loader).__name__} had num_workers="
            f"{former}, and it has {loader.num_workers} now: the samples are the same, "
            "random numbers that are drawn while they are loaded are not. Use as many "
            "workers to go on exactly."
        )


def _told_of_replay(loader: Any, skip: int) -> str:
    what = getattr(loader, "dataset", loader)
    name = f"{type(loader).__name__}({type(what).__name__})"
    if what is loader:
        name = type(loader).__name__
    remedy = "Give it `state_dict` and `load_state_dict` to begin at the position."
    if isinstance(loader, DataLoader) and not loader.in_order:
        remedy = (
            "Its workers yield in an order of their own: leave out `in_order=False`."
        )
    return (
        f"the first {skip} batches of {name} are read again and dropped, because it cannot "
        "be told to begin behind them. The run goes on exactly only if it yields the same "
        "batches again; random numbers that are drawn while reading may differ. "
        + remedy
    )


def as_data(indices: Any) -> Any:
    """Return indices of any kind as what a checkpoint holds and `==` compares."""
    if isinstance(indices, (list, tuple)):
        return [as_data(index) for index in indices]
    if hasattr(indices, "tolist"):  # of torch and NumPy
        return indices.tolist()
    kept = isinstance(indices, (bool, int, float, str))
    return indices if kept else type(indices).__name__


def _short(indices: Any) -> str:
    text = str(indices)
    return text if len(text) <= 60 else f"{text[:57]}..."
