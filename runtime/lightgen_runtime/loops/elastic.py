"""Going on inside an epoch with another number of processes.

The order in which an epoch draws its samples is a function of the seed and the epoch, or
of the random states of the one process that has drawn it. What all processes have read of
it is its beginning; what follows is shared out anew, to the epoch's end. A checkpoint
notes how the running epoch is shared out:

* `processes`, `per_batch`, `batches`: how many read it, how many samples of each in a
  batch (batches of a batch sampler of the user's own count as one), and the epoch's
  number of batches for each.
* `begins`: the number in the epoch of the first batch that was shared out like this.
* `read`: samples that were read before that one, in former shares.
* `units`: samples that the epoch has for all; None if only exhaustion tells.
* `seed`: of the order; None if the one process drew it from its random states.
* `drawn_by`: the class of the sampler, or of the user's own batch sampler.
* `begun`: of an epoch that has been shared out anew, what its order was drawn from; with
  the last indices that were drawn, and the place behind them, where that may not be enough.
* `why`: why nobody can share it out anew; None if that is possible.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from lightgen_runtime.io.content_check import reading
from lightgen_runtime.io.schema import OWN_KEY
from lightgen_runtime.loops.position import (
    Indices,
    as_data,
    drawing_by,
    has_own_iteration,
    indices_of,
    is_stateful,
    set_random_states,
)
from lightgen_runtime.loops.samplers import (
    announce_epoch,
    samplers_of,
    set_generators,
)
from lightgen_runtime.loops.share import (
    dealt_by,
    rest_share,
    train_share,
    undivided,
    with_samplers,
)
from lightgen_runtime.utilities.combined_loader import CombinedLoader
from lightgen_runtime.utilities.exceptions import CheckpointMismatchError
from lightgen_runtime.utilities.rank_zero import rank_zero_warn
from lightgen_runtime.utilities.seed import isolate_rng

if TYPE_CHECKING:
    from lightgen_runtime.loops.feed import Feed
    from lightgen_runtime.loops.run import Run
    from lightgen_runtime.strategies import Strategy


def share_of(run: Run) -> dict[str, Any] | None:
    """Return how the running epoch is shared out, as plain data; None if nobody knows."""
    if run.resumed is not None or not run.source.opened("train"):
        return run.share
    share = _as_given(run.source.train(), run.parts.strategy)
    return share if run.share is None else {**share, **run.share}


def share_anew(run: Run, feed: Feed, gradients: list[Tensor | None]) -> bool:
    """Let the rest of a resumed epoch be read as it is shared out now.

    Args:
        run: The run, whose `share` is the checkpoint's.
        feed: Of the training data.
        gradients: Of a window of accumulation that is open; adapted to its new length.

    Returns:
        Whether this process begins a share; else it goes on in one that was begun.

    Raises:
        CheckpointMismatchError: The checkpoint's run had other processes, and what is
            left of its epoch is not known.
    """
    former, strategy = run.share, run.parts.strategy
    if former is None:
        return False
    with reading(f"{OWN_KEY}.share", run.trainer.ckpt_path):
        _check(former)
    now = _as_given(feed, strategy)
    same = former["processes"] == now["processes"]
    why = former["why"] or now["why"] or _other_sampler(former, now)
    if same and (why or _is_first(former, now)):
        run.share = None
        if not (former["why"] or now["why"]) and why:
            rank_zero_warn(
                f"the order of the training data is not the one of the run that is resumed: "
                f"{why}. Some samples of this epoch may be read twice and some not at all."
            )
        return False
    if why:
        raise mismatch(str(run.trainer.ckpt_path), former, now["processes"], why)
    anew = not same or former["per_batch"] != now["per_batch"]
    read, begins = former["read"], former["begins"]
    done = run.progress.batch_idx
    if anew:
        read += former["processes"] * former["per_batch"] * (done - begins)
        begins = done
    order = _order(feed.given, former, run.progress.current_epoch)
    rest = order[: former["units"]][read:]
    if not rest:
        why = f"it has {len(order)} samples, and {read} were read"
    elif not _is_as_drawn(order, former["begun"]["last"]):
        why = f"{former['drawn_by']} draws in another order now"
    if why:
        raise mismatch(str(run.trainer.ckpt_path), former, now["processes"], why)
    loader = rest_share(feed.given, rest, strategy.data_world_size, strategy.data_rank)
    feed.read_rest(loader, begins, anew)
    kept = ("units", "seed", "drawn_by", "begun")
    run.share = {key: former[key] for key in kept}
    run.share.update(read=read, begins=begins)
    if anew:
        _rescale(gradients, run, former["batches"], feed.num_batches)
        _tell(former, now, len(rest))
    return anew


def _check(share: dict[str, Any]) -> None:
    """Refuse what no run has written."""
    if share["why"] is not None:
        return
    numbers = [share[key] for key in ("processes", "per_batch", "read", "begins")]
    least = (1, 1, 0, 0)
    numbers += [share[key] or 1 for key in ("units", "batches")]
    if not all(type(n) is int for n in numbers) or any(map(int.__lt__, numbers, least)):
        raise ValueError(f"an epoch cannot be shared out by {numbers}")
    if not isinstance(share["seed"], (int, type(None))):
        raise TypeError(f"{share['seed']!r} is no seed")
    if not isinstance(share["drawn_by"], str):
        raise TypeError(f"{share['drawn_by']!r} is no class")
    for key in ("rng", "again", "samplers", "last"):
        share["begun"][key]


def mismatch(
    source: str, former: dict[str, Any] | None, processes: int, why: str
) -> CheckpointMismatchError:
    """Return the error for an epoch of which it is not known what is left."""
    by = "another number of" if former is None else former["processes"]
    return CheckpointMismatchError(
        f"`{source}` was written inside an epoch by {by} process(es), and this run has "
        f"{processes}. What is left of the epoch cannot be shared out anew: {why}. Use as "
        "many processes and the same batch size, or pass as `ckpt_path` the path of a "
        "checkpoint that was written at an epoch's end."
    )


def _as_given(feed: Feed, strategy: Strategy) -> dict[str, Any]:
    """Return how an epoch is shared out that the running number of processes begins."""
    processes, loader = strategy.data_world_size, feed.loader
    why = _why_not(feed, strategy)
    if why is not None:
        return {"processes": processes, "why": why}
    split, batches = dealt_by(loader), loader.batch_sampler
    per_batch = batches.batch_size if type(batches) is BatchSampler else 1
    known = feed.sized
    return {
        "processes": processes,
        "per_batch": per_batch,
        "batches": int(feed.num_batches) if known else None,
        "begins": 0,
        "read": 0,
        "units": int(feed.num_batches) * per_batch * processes if known else None,
        "seed": None if split is None else split.seed,
        "drawn_by": type(_drawing(undivided(feed.given))).__name__,
        "why": None,
    }


def _why_not(feed: Feed, strategy: Strategy) -> str | None:
    loader = feed.loader
    name = type(loader).__name__
    if strategy.world_size != strategy.data_world_size:
        return "one model lies over several processes that read the same samples"
    if isinstance(loader, CombinedLoader):
        return "it is read from several loaders"
    if (
        not isinstance(loader, DataLoader)
        or has_own_iteration(type(loader))
        or is_stateful(loader)
    ):
        return f"which samples {name} has yielded is not known"
    if isinstance(loader.dataset, IterableDataset):
        return f"{type(loader.dataset).__name__} is a stream, whose order is not known"
    if not loader.in_order and loader.num_workers:
        return f"{name}(in_order=False) yields batches in an order of its own"
    if strategy.data_world_size > 1 and dealt_by(loader) is None:
        return f"{name} was not split by the trainer or by a `DistributedSampler`"
    return None


def _other_sampler(former: dict[str, Any], now: dict[str, Any]) -> str | None:
    if former["drawn_by"] == now["drawn_by"]:
        return None
    return f"it was drawn by {former['drawn_by']}, and {now['drawn_by']} draws now"


def _is_as_drawn(order: list[Any], last: list[Any] | None) -> bool:
    """Tell whether an order holds the indices that were drawn last, where they are known."""
    if last is None:
        return True
    end, indices = min(last[0], len(order)), last[1]
    samples = len(indices) if isinstance(indices, list) else 1
    batch = as_data(order[end - samples : end])
    return indices in (batch, *as_data(order[end - 1 : end]))


def _is_first(former: dict[str, Any], now: dict[str, Any]) -> bool:
    """Tell whether a run reads on in the share that an epoch began with."""
    alike = all(former[key] == now[key] for key in ("per_batch", "seed"))
    return not former["read"] and alike


def _order(loader: DataLoader[Any], share: dict[str, Any], epoch: int) -> list[Any]:
    """Return everything that an epoch draws, in the order in which it was drawn."""
    loader, begun = undivided(loader), share["begun"]
    seed = share["seed"]
    with isolate_rng():
        if seed is not None:
            with reading(f"{OWN_KEY}.epoch_rng", "ckpt_path"):
                set_generators(loader, begun["rng"]["loader"])
            whole = train_share(loader, 1, 0, seed)
            announce_epoch(whole, epoch)
            return list(_drawing(whole))
        set_random_states(loader, begun["rng"])
        announce_epoch(loader, epoch)
        return _drawn_by_one(loader, begun)


def _drawing(loader: DataLoader[Any]) -> Any:
    """Return what draws samples, or batches of them if that is the user's own."""
    batches = loader.batch_sampler
    is_own = batches is not None and type(batches) is not BatchSampler
    return batches if is_own else loader.sampler


def _drawn_by_one(loader: DataLoader[Any], begun: dict[str, Any]) -> list[Any]:
    stateful = [s for s in samplers_of(loader) if is_stateful(s)]
    for sampler, state in zip(stateful, begun["samplers"], strict=False):
        sampler.load_state_dict(state)
    plain = type(loader.batch_sampler) is BatchSampler
    if plain:  # batches of one, so that none is left out at the end
        by_one = BatchSampler(loader.sampler, 1, drop_last=False)
        loader = with_samplers(loader, loader.sampler, by_one)
    indices = Indices(indices_of(loader))
    if begun["again"]:  # its workers lived on, for which no seed was drawn
        drawn = iter(indices)
    else:
        drawing = drawing_by(loader, indices)
        vars(drawing).update(num_workers=0)
        reading = iter(drawing)  # draws the workers' seed where a pass does
        drawn = indices.drawing
        del reading
    return list(chain.from_iterable(drawn) if plain else drawn)


def _rescale(
    gradients: list[Tensor | None],
    run: Run,
    former: int | None,
    batches: int | float,
) -> None:
    """Let gradients of an open window count as the batches of the one that it becomes."""
    window, done = run.trainer.accumulate_grad_batches, run.progress.batch_idx
    opened = done - done % window
    if not gradients or former is None:
        return
    factor = min(window, former - opened) / min(window, int(batches) - opened)
    if factor != 1.0:
        for gradient in gradients:
            if gradient is not None:
                gradient.mul_(factor)


def _tell(former: dict[str, Any], now: dict[str, Any], left: int) -> None:
    rank_zero_warn(
        f"the epoch goes on with {now['processes']} process(es), batch size "
        f"{now['per_batch']}, where it had {former['processes']} and "
        f"{former['per_batch']}: the {left} samples that are left of it are shared out "
        "anew, each is read once. Random numbers (augmentation, dropout) are not those of "
        "the former run, and an epoch takes another number of steps from here on: look "
        "at schedules that count steps."
    )
