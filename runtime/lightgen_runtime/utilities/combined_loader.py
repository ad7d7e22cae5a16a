"""Several loaders read as one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch.utils._pytree import tree_flatten, tree_unflatten

from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.nearest import did_you_mean

_END = object()


class CombinedLoader:
    """Reads a collection of loaders together, or one after the other.

    Args:
        iterables: Loaders in any nesting of lists, tuples and dictionaries. Batches come
            in the same nesting.
        mode: "min_size" ends with the shortest loader; "max_size_cycle" ends with the
            longest and starts shorter ones again; "max_size" ends with the longest and
            gives None for those that are over; "sequential" reads one after the other.

    Raises:
        MisconfigurationException: The mode is unknown.

    Example:
        >>> loader = CombinedLoader({"a": [1, 2, 3], "b": [10, 20]}, "max_size_cycle")
        >>> [batch for batch, batch_idx, dataloader_idx in loader]
        [{'a': 1, 'b': 10}, {'a': 2, 'b': 20}, {'a': 3, 'b': 10}]
    """

    def __init__(self, iterables: Any, mode: str = "min_size") -> None:
        if mode not in _READERS:
            raise MisconfigurationException(
                f"`CombinedLoader(mode={mode!r})`: accepted are "
                f"{', '.join(map(repr, _READERS))}.{did_you_mean(mode, _READERS)}"
            )
        self.mode = mode
        self._iterables = iterables
        self.flattened, self._spec = tree_flatten(iterables, is_leaf=_is_loader)

    @property
    def iterables(self) -> Any:
        """The collection of loaders, as it was given."""
        return self._iterables

    def rebuilt(self, loaders: list[Any]) -> Any:
        """Return other loaders in the place of these, in the same collection."""
        return tree_unflatten(loaders, self._spec)

    def map(self, replace: Callable[[Any], Any]) -> CombinedLoader:
        """Return the same combination of what `replace` returns for each loader."""
        loaders = [replace(loader) for loader in self.flattened]
        return CombinedLoader(self.rebuilt(loaders), self.mode)

    def __iter__(self) -> Iterator[tuple[Any, int, int]]:
        """Yield (batch, batch_idx, dataloader_idx); the latter is 0 unless sequential."""
        if self.mode == "sequential":
            for dataloader_idx, loader in enumerate(self.flattened):
                for batch_idx, batch in enumerate(loader):
                    yield batch, batch_idx, dataloader_idx
            return
        for batch_idx, batches in enumerate(_READERS[self.mode](self.flattened)):
            yield tree_unflatten(batches, self._spec), batch_idx, 0

    def __len__(self) -> int:
        """Return the number of batches of one pass.

        Raises:
            NotImplementedError: A loader that decides it has no length.
        """
        lengths = []
        for loader in self.flattened:
            try:
                lengths.append(len(loader))
            except (TypeError, NotImplementedError) as error:
                if self.mode == "min_size":
                    continue
                raise NotImplementedError(
                    f"{type(loader).__name__} has no length, so neither has the "
                    f"combination in mode {self.mode!r}"
                ) from error
        if not lengths:
            raise NotImplementedError("none of the combined loaders has a length")
        if self.mode == "sequential":
            return sum(lengths)
        return min(lengths) if self.mode == "min_size" else max(lengths)


def _is_loader(node: Any) -> bool:
    """Tell a loader from a collection of them; a list of numbers is a loader too."""
    if isinstance(node, dict):
        node = node.values()
    elif not isinstance(node, (list, tuple)):
        return True
    return bool(node) and all(isinstance(part, (int, float, str)) for part in node)


def _together_until_shortest(loaders: list[Any]) -> Iterator[list[Any]]:
    for batches in zip(*loaders, strict=False):
        yield list(batches)


def _together_until_longest(loaders: list[Any]) -> Iterator[list[Any]]:
    iterators = [iter(loader) for loader in loaders]
    while True:
        batches = [next(iterator, _END) for iterator in iterators]
        if all(batch is _END for batch in batches):
            return
        yield [None if batch is _END else batch for batch in batches]


def _together_again(loaders: list[Any]) -> Iterator[list[Any]]:
    iterators = [iter(loader) for loader in loaders]
    # One may have been over before, where reading begins again in the middle.
    over = [getattr(loader, "was_read", False) for loader in loaders]
    while True:
        batches = []
        for number, loader in enumerate(loaders):
            batch = next(iterators[number], _END)
            if batch is _END:
                over[number] = True
                if all(over):
                    return
                iterators[number] = iter(loader)
                batch = next(iterators[number], _END)
            batches.append(None if batch is _END else batch)
        yield batches


_READERS: dict[str, Callable[[list[Any]], Iterator[list[Any]]]] = {
    "min_size": _together_until_shortest,
    "max_size_cycle": _together_again,
    "max_size": _together_until_longest,
    "sequential": _together_until_longest,
}
