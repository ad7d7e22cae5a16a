"""Evaluating where each step needs all processes, and some have fewer batches.

A model that lies over several processes is put together for each step by all of them.
A process without a batch of its own computes one again, for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from lightgen_runtime.core.metrics import LogScope, MetricStore
from lightgen_runtime.loops.metric_objects import unchanged_objects

if TYPE_CHECKING:
    from lightgen_runtime.loops.feed import Feed
    from lightgen_runtime.loops.run import Run

Batches = Iterator[tuple[int, Any, bool]]


def in_company(
    run: Run,
    feed: Feed,
    iterator: Iterator[Any],
    start: int,
    step: Callable[..., Any],
    scope: LogScope,
    number: tuple[int, ...],
) -> Batches:
    """Return the batches of an evaluating pass; while others have more, compute along.

    What is computed along is neither logged nor kept, fires no hook, and leaves objects of
    torchmetrics as they were.

    Args:
        run: The run.
        feed: The loader's.
        iterator: From `feed.open`.
        start: Number of its first batch.
        step: The bound step method.
        scope: In which the step logs.
        number: The loader's, if there are several.

    Cost: nothing where processes do not need each other; else one exchange a pass, or
    one a batch if a loader has no length.
    """
    strategy = run.parts.strategy
    batches = feed.batches(iterator, start)
    if not strategy.spreads_model or strategy.data_world_size == 1:
        return batches
    return _in_company(run, feed, batches, start, step, scope, number)


def _in_company(
    run: Run,
    feed: Feed,
    batches: Batches,
    start: int,
    step: Callable[..., Any],
    scope: LogScope,
    number: tuple[int, ...],
) -> Batches:
    strategy, context = run.parts.strategy, run.context
    own = int(feed.num_batches) - start if feed.sized else None
    counts = strategy.gather_objects(own, strategy.data_group)
    rounds = None if None in counts else max(counts)
    done, kept = 0, None
    while True:
        item = next(batches, None)
        if rounds is None:
            over = not strategy.reduce_boolean_decision(item is not None, all=False)
        else:
            over = item is None and done >= rounds
        if over:
            return
        if item is not None:
            kept = item[1]
            yield item
        else:
            if kept is None:
                kept = feed.borrowed()
            unseen = MetricStore(scope.store.stage)
            context.scope = LogScope(scope.hook, scope.rule, unseen)
            context.batch, context.batch_size = kept, None
            with unchanged_objects(run.module):
                step(kept, done, *number)
        done += 1
