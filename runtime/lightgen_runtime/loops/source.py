"""Which loaders a stage reads, and how many batches of each."""

from __future__ import annotations

import os
from collections.abc import Callable, Sized
from typing import TYPE_CHECKING, Any

from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)

from lightgen_runtime.core.data_hooks import DataHooks, data_owner
from lightgen_runtime.core.hooks import is_overridden
from lightgen_runtime.loops.copy_stream import CopyStream
from lightgen_runtime.loops.feed import Feed, Transfer
from lightgen_runtime.loops.samplers import loaders_of
from lightgen_runtime.loops.share import (
    evaluation_share,
    splits,
    train_share,
    with_samplers,
)
from lightgen_runtime.precision import Precision
from lightgen_runtime.utilities.combined_loader import CombinedLoader
from lightgen_runtime.utilities.exceptions import (
    EmptyDataError,
    MisconfigurationException,
)
from lightgen_runtime.utilities.move_data import move_data_to_device
from lightgen_runtime.utilities.rank_zero import rank_zero_warn
from lightgen_runtime.utilities.seed import WORKERS_VARIABLE, seed_worker

if TYPE_CHECKING:
    from lightgen_runtime.core.datamodule import LightningDataModule
    from lightgen_runtime.core.module import LightningModule
    from lightgen_runtime.trainer.build import TrainerParts

_HOOKS = {
    "train": "train_dataloader",
    "validate": "val_dataloader",
    "test": "test_dataloader",
    "predict": "predict_dataloader",
}
_LIMITS = {
    "train": "limit_train_batches",
    "validate": "limit_val_batches",
    "test": "limit_test_batches",
    "predict": "limit_predict_batches",
}
_TRANSFER_HOOKS = (
    "on_before_batch_transfer",
    "transfer_batch_to_device",
    "on_after_batch_transfer",
)


class DataSource:
    """The loaders of one run: given by the caller, else by the datamodule or module.

    Each hook is called once; what it returned serves the whole run.
    """

    def __init__(
        self,
        parts: TrainerParts,
        module: LightningModule,
        datamodule: LightningDataModule | None,
        given: dict[str, Any],
    ) -> None:
        self._parts = parts
        self._module = module
        self._datamodule = datamodule
        self._given = {
            stage: value for stage, value in given.items() if value is not None
        }
        self._feeds: dict[str, list[Feed]] = {}
        # The collections from which several loaders came.
        self._forms: dict[str, CombinedLoader] = {}
        self._stale: set[str] = set()

    def has(self, stage: str) -> bool:
        """Tell whether there is a loader for a stage."""
        return stage in self._given or self._owner(_HOOKS[stage]) is not None

    def opened(self, stage: str) -> bool:
        """Tell whether the stage's loaders have been asked for yet."""
        return stage in self._feeds

    def forget(self) -> None:
        """Ask for loaders anew: for training's now, for others' when `renewed` is called."""
        self._feeds.pop("train", None)
        self._stale = set(self._feeds)

    def renewed(self, stage: str) -> list[Feed]:
        """Return the stage's feeds, asking for its loaders again after `forget`."""
        if stage in self._stale:
            self._stale.remove(stage)
            del self._feeds[stage]
        return self.feeds(stage)

    def batches(self, stage: str) -> list[int | float]:
        """Return how many batches of each loader a pass reads; nothing if it reads none."""
        flag = _LIMITS[stage]
        limit = getattr(self._parts, flag)
        return [
            limited(_length(loader), limit, flag)
            for feed in (self.feeds(stage) if self.has(stage) else [])
            for loader in loaders_of(feed.loader)
        ]

    def feeds(self, stage: str) -> list[Feed]:
        """Return the stage's feeds, asking for its loaders the first time.

        Raises:
            MisconfigurationException: There is no loader, or a limit makes no sense.
            EmptyDataError: A loader that was asked for by name yields nothing.
        """
        if stage not in self._feeds:
            transfer = self._transfer()
            self._feeds[stage] = [
                self._feed(stage, loader, transfer, number)
                for number, loader in enumerate(self._loaders(stage))
            ]
        return self._feeds[stage]

    def loaders(self, stage: str) -> Any:
        """Return the stage's loader, or its loaders in the collection they came in."""
        loaders = [feed.loader for feed in self.feeds(stage)]
        if stage in self._forms:
            return self._forms[stage].rebuilt(loaders)
        (loader,) = loaders
        return loader.iterables if isinstance(loader, CombinedLoader) else loader

    def is_given(self, stage: str) -> bool:
        """Tell whether the caller passed the stage's loaders."""
        return stage in self._given

    def again(self, parts: TrainerParts) -> DataSource:
        """Return a source that asks for its loaders anew, under other limits."""
        return DataSource(parts, self._module, self._datamodule, self._given)

    def reload(self) -> None:
        """Ask anew for the loaders in use; the feeds that the loops hold get them."""
        for stage, feeds in list(self._feeds.items()):
            del self._feeds[stage]
            for feed, fresh in zip(feeds, self.feeds(stage), strict=True):
                feed.loader, feed.given = fresh.loader, fresh.given
                feed.num_batches = fresh.num_batches
            self._feeds[stage] = feeds

    def num_samples(self, stage: str) -> int | float:
        """Return the length of the stage's largest dataset; infinity if one has none."""
        datasets = [
            getattr(loader, "dataset", None)
            for feed in self.feeds(stage)
            for loader in loaders_of(feed.loader)
        ]
        return max((_length(dataset) for dataset in datasets), default=float("inf"))

    def train(self) -> Feed:
        """Return the training feed."""
        return self.feeds("train")[0]

    def _loaders(self, stage: str) -> list[Any]:
        loaders = self._given.get(stage)
        if stage in ("validate", "test") and getattr(self._parts, _LIMITS[stage]) == 0:
            return []
        if loaders is None:
            owner = self._owner(_HOOKS[stage]) or self._module
            hook = getattr(owner, _HOOKS[stage])
            if not callable(hook):
                raise MisconfigurationException(
                    f"`{type(owner).__name__}.{_HOOKS[stage]}` is a "
                    f"{type(hook).__name__}; it must be a method that returns one"
                )
            loaders = hook()
        if loaders is None:
            raise MisconfigurationException(
                f"`{_HOOKS[stage]}` gave None; an iterable of batches, such as a "
                "`DataLoader`, or a collection of them is needed"
            )
        self._forms.pop(stage, None)
        if isinstance(loaders, (list, tuple, dict)):
            mode = "max_size_cycle" if stage == "train" else "sequential"
            loaders = CombinedLoader(loaders, mode)
            if stage == "train" and not loaders.flattened:
                raise EmptyDataError(
                    "`train_dataloader` gave an empty collection; an iterable of batches, "
                    "such as a `DataLoader`, is needed"
                )
        if not isinstance(loaders, CombinedLoader) or loaders.mode != "sequential":
            if isinstance(loaders, CombinedLoader) and stage == "predict":
                raise MisconfigurationException(
                    f"`predict` with CombinedLoader(mode={loaders.mode!r}): predictions "
                    'are kept loader by loader, so only "sequential" is accepted'
                )
            return [loaders]
        if stage == "train":
            raise MisconfigurationException(
                '`fit` with CombinedLoader(mode="sequential"): accepted are "min_size", '
                '"max_size" and "max_size_cycle"'
            )
        self._forms[stage] = loaders
        return list(loaders.flattened)

    def _owner(self, hook: str) -> DataHooks | None:
        return data_owner(hook, self._datamodule, self._module)

    def _feed(
        self, stage: str, loader: Any, transfer: Transfer | None, number: int
    ) -> Feed:
        for part in loaders_of(loader):
            _check_loader(part, _HOOKS[stage])
        if self._parts.overfit_batches and self._module.trainer.state.fn == "fit":
            loader = _each(_unshuffled, loader)
        # The share of rank 0, which is the largest where they differ.
        most = _length(self._share(stage, loader, 0))
        limit = getattr(self._parts, _LIMITS[stage])
        if most == 0 and limit != 0:
            raise EmptyDataError(
                f"`{_HOOKS[stage]}` gave a loader without a single batch: its dataset is "
                "empty, or smaller than one batch with drop_last=True. Check the dataset's "
                "length and the batch size."
            )
        exact = stage != "train" and limit != 0 and self._shares(loader)
        given, loader = loader, self._share(
            stage, loader, self._parts.strategy.data_rank
        )
        if os.environ.get(WORKERS_VARIABLE) == "1":
            for part in loaders_of(loader):
                if isinstance(part, DataLoader):
                    part.worker_init_fn = part.worker_init_fn or seed_worker
        overfits = self._parts.overfit_batches and stage in ("train", "validate")
        flag = "overfit_batches" if overfits else _LIMITS[stage]
        fewer = min(_length(loader), limited(most, limit, flag))
        sized, required = most != float("inf"), stage == "train"
        feed = Feed(loader, fewer, transfer, number, sized, required, exact)
        feed.given = given
        return feed

    def _shares(self, loader: Any) -> bool:
        """Tell whether each process gets a part of a loader's data."""
        parts = self._parts
        several = parts.strategy.world_size > 1 and parts.use_distributed_sampler
        return several and splits(loader)

    def _share(self, stage: str, loader: Any, rank: int) -> Any:
        """Return what the process of that rank reads of a loader, or of a combination."""
        share = train_share if stage == "train" else evaluation_share
        world_size = self._parts.strategy.data_world_size

        def part(each: Any) -> Any:
            return share(each, world_size, rank) if self._shares(each) else each

        return _each(part, loader)

    def _transfer(self) -> Transfer | None:
        """Return how a batch gets to its dtype and device, or None if it is there."""
        move, precision = self._movement(), self._parts.precision
        if not is_overridden("convert_input", precision, Precision):
            return move
        convert = precision.convert_input
        if move is None:
            return lambda batch, _: convert(batch)
        return lambda batch, number: move(convert(batch), number)

    def _movement(self) -> Transfer | None:
        """Return how a batch gets to the device, or None if there is nothing to do."""
        owners: dict[str, DataHooks] = {}
        for hook in _TRANSFER_HOOKS:
            owner = self._owner(hook)
            if owner is not None:
                owners[hook] = owner
        device = self._parts.strategy.root_device
        if not owners:
            if device.type == "cpu":
                return None
            if device.type == "cuda":
                return CopyStream(device)
            return lambda batch, _: move_data_to_device(batch, device)
        before, move, after = (
            owners.get(hook, self._module) for hook in _TRANSFER_HOOKS
        )

        def transfer(batch: Any, dataloader_idx: int) -> Any:
            batch = before.on_before_batch_transfer(batch, dataloader_idx)
            batch = move.transfer_batch_to_device(batch, device, dataloader_idx)
            return after.on_after_batch_transfer(batch, dataloader_idx)

        return transfer


def limited(num_batches: int | float, limit: int | float, flag: str) -> int | float:
    """Apply a `limit_*_batches` flag to a loader's length.

    Args:
        num_batches: Length of the loader, infinity when unknown.
        limit: Number of batches (int) or share of the loader (float from 0 to 1).
        flag: The flag's name, for messages.

    Raises:
        MisconfigurationException: A share of an unknown length, or one that rounds to
            nothing.
    """
    if isinstance(limit, int):
        return min(num_batches, limit)
    if limit == 1.0:
        return num_batches
    if num_batches == float("inf"):
        if limit == 0.0:
            return 0
        raise MisconfigurationException(
            f"`Trainer({flag}={limit})`: the loader has no length to take a share of; "
            "use 1.0 or a whole number of batches"
        )
    share = int(num_batches * limit)
    if share == 0 and limit > 0:
        raise MisconfigurationException(
            f"`Trainer({flag}={limit})`: that share of {num_batches} batches rounds to "
            f"none; at least {1 / num_batches:.3f} is needed"
        )
    return share


def _check_loader(loader: Any, hook: str) -> None:
    iterable = hasattr(loader, "__iter__") or hasattr(loader, "__getitem__")
    if not iterable or isinstance(loader, (str, bytes)):
        raise MisconfigurationException(
            f"`{hook}` gave {loader!r} ({type(loader).__name__}); an iterable of batches, "
            "such as a `DataLoader`, is needed"
        )
    if isinstance(loader, Dataset) and not isinstance(loader, IterableDataset):
        rank_zero_warn(
            f"`{hook}` gave a {type(loader).__name__}: each of its samples is taken for a "
            "batch. Unless they are batches, wrap it: "
            "`DataLoader(dataset, batch_size=...)`."
        )


def _length(loader: Any) -> int | float:
    if not isinstance(loader, Sized):
        return float("inf")
    try:
        return len(loader)
    except (TypeError, NotImplementedError):  # e.g. a loader of an iterable dataset
        return float("inf")


def _each(replace: Callable[[Any], Any], loader: Any) -> Any:
    """Replace a loader, or each one of a combination."""
    combined = isinstance(loader, CombinedLoader)
    return loader.map(replace) if combined else replace(loader)


def _unshuffled(loader: Any) -> Any:
    if not isinstance(loader, DataLoader) or not isinstance(
        loader.sampler, RandomSampler
    ):
        return loader
    dataset: Any = loader.dataset
    sampler, batches = SequentialSampler(dataset), loader.batch_sampler
    if type(batches) is BatchSampler:
        batches = BatchSampler(sampler, batches.batch_size, batches.drop_last)
    return with_samplers(loader, sampler, batches)
