"""The story of an evaluation: validation inside a fit, and `validate` and `test`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from lightgen_runtime.io.schema import VALIDATED
from lightgen_runtime.loops.company import in_company
from lightgen_runtime.loops.feed import Feed
from lightgen_runtime.loops.position import random_states, set_random_states
from lightgen_runtime.loops.progress import ValidationPosition
from lightgen_runtime.loops.report import read_floats
from lightgen_runtime.loops.signature import check_takes_loader_number, positional
from lightgen_runtime.utilities.seed import isolate_rng

if TYPE_CHECKING:
    from lightgen_runtime.core.hooks import Listeners
    from lightgen_runtime.loops.run import Run

PREFIXES = {"validate": "validation", "test": "test", "predict": "predict"}


class StageHooks:
    """The hooks of one evaluating stage, found by their part of the name."""

    __slots__ = ("_run", "_table", "prefix")

    def __init__(self, run: Run, stage: str) -> None:
        self._run = run
        self._table = run.hooks
        self.prefix = PREFIXES[stage]

    def fire(self, part: str, *args: Any) -> None:
        """Fire `on_<stage>_<part>`."""
        self._table.fire(self.listeners(part), *args)

    def listeners(self, part: str) -> Listeners | None:
        """Return who listens to `on_<stage>_<part>`."""
        name = f"on_{self.prefix}_{part}"
        # Predicting has no `model_train`: nothing trains on afterwards.
        listeners: Listeners | None = getattr(self._table, name, None)
        return listeners

    @contextmanager
    def eval_mode(self) -> Iterator[None]:
        """Evaluate inside; afterwards every submodule is in its own mode again.

        The module's hooks may switch in another way.
        """
        module = self._run.module
        modes = [(part, part.training) for part in module.modules()]
        restores = self.listeners("model_train") is None
        try:
            if self.listeners("model_eval") is None:
                module.eval()
            self.fire("model_eval")
            yield
            self.fire("model_train")
        except BaseException:
            restores = True  # so that the model can be used after an error
            raise
        finally:
            if restores:
                for part, training in modes:
                    part.training = training


def evaluate_alone(run: Run, stage: str) -> list[dict[str, float]]:
    """Run one pass over every loader of a stage, outside of a fit; as `evaluate`."""
    return evaluate(run, stage, run.source.feeds(stage), in_fit=False)


def evaluate(
    run: Run, stage: str, feeds: list[Feed], *, in_fit: bool
) -> list[dict[str, float]]:
    """Run one pass over every loader of a stage.

    Args:
        run: The run.
        stage: "validate" or "test".
        feeds: One for each loader.
        in_fit: Whether a fit goes on afterwards.

    Returns:
        For each loader, what was logged over its epoch.
    """
    if not any(feed.takes_part for feed in feeds):  # switched off by a limit of 0
        run.validation = None
        return []
    hooks, report, store = StageHooks(run, stage), run.report, run.stores[stage]
    progress = run.progress
    sanity_checking = run.trainer.sanity_checking
    if not sanity_checking:
        run.trainer.enter_stage(stage)
    inside_epoch = in_fit and not sanity_checking
    with _no_gradients(run, in_fit), hooks.eval_mode():
        run.parts.strategy.sync_buffers()
        report.enter(store, between_batches=not inside_epoch)
        position = run.validation  # of a checkpoint that was written in the middle
        if position is None:
            store.reset()
            position = ValidationPosition()
            run.validation = position if inside_epoch else None
            hooks.fire("start")
            hooks.fire("epoch_start")
        run.context.keep = True
        while position.loader < len(feeds):
            _one_loader(run, stage, hooks, feeds, position)
            position.next_loader()
        store.select(None)
        if not position.ended:
            position.ended = True
            run.context.leave_batch()
            hooks.fire("epoch_end")
        run.agree_on_epoch()
        results = _results(run, stage, len(feeds))
        if not sanity_checking:
            report.send_epoch(progress.current_epoch, progress.batches_that_stepped)
            if in_fit:
                progress.phase = VALIDATED
        run.validation = None
        hooks.fire("end")
        store.reset()  # metric objects too, which the module may use in another run
    return results


def sanity_check(run: Run) -> None:
    """Try a few validation batches before training, so that mistakes show early.

    Leaves no trace: random numbers, metrics and modes are as before.
    """
    steps = run.parts.num_sanity_val_steps
    if not run.validates or steps == 0:
        return
    hooks, trainer = run.hooks, run.trainer
    limit = float("inf") if steps == -1 else steps
    trainer.enter_stage("sanity_check")
    with isolate_rng():
        hooks.fire(hooks.on_sanity_check_start)
        feeds = [feed.limited_to(limit) for feed in run.source.feeds("validate")]
        if feeds:
            evaluate(run, "validate", feeds, in_fit=True)
        hooks.fire(hooks.on_sanity_check_end)
    run.stores["validate"].clear()
    run.report.clear()
    run.resolve_hooks()


def _one_loader(
    run: Run,
    stage: str,
    hooks: StageHooks,
    feeds: list[Feed],
    position: ValidationPosition,
) -> None:
    context, store, report = run.context, run.stores[stage], run.report
    feed, several = feeds[position.loader], len(feeds) > 1
    number = (feed.dataloader_idx,) if several else ()
    store.select(feed.dataloader_idx if several else None)
    step = bound_step(run, f"{hooks.prefix}_step", 2 + several)
    scope = run.scopes[f"{hooks.prefix}_step"]
    before, after = hooks.listeners("batch_start"), hooks.listeners("batch_end")
    if several:
        _check_batch_hooks(before, 2)
        _check_batch_hooks(after, 3)
    fire = run.hooks.fire
    kind = "val" if stage == "validate" else stage
    iterator = run.measured_items(
        f"[_EvaluationLoop].{kind}_next", _opened(run, feed, position)
    )
    report.between_batches = False
    if not position.settled:
        _settle(run, stage, feed, position)
    batches = in_company(run, feed, iterator, position.batches, step, scope, number)
    for batch_idx, batch, _ in batches:
        context.batch, context.batch_size = batch, None
        if before is not None:
            fire(before, batch, batch_idx, *number)
        context.scope = scope
        position.batches, position.settled = batch_idx + 1, False
        output = step(batch, batch_idx, *number)
        if after is not None:
            fire(after, output, batch, batch_idx, *number)
        _settle(run, stage, feed, position)
    report.between_batches = True
    report.publish()  # callbacks may watch it while the next loader runs


def _opened(run: Run, feed: Feed, position: ValidationPosition) -> Iterator[Any]:
    """Start a pass over a loader, or go back to where a checkpoint was written in it."""
    if position.rng is None:
        if run.validation is not None:
            position.rng = random_states(feed.loader)
        return feed.open()
    # Random numbers first as the pass met them, then as they were saved.
    saved = random_states(feed.loader)
    set_random_states(feed.loader, position.rng)
    iterator = feed.open(skip=position.batches)
    set_random_states(feed.loader, saved)
    return iterator


def _settle(run: Run, stage: str, feed: Feed, position: ValidationPosition) -> None:
    """Do what is due after a batch and its hooks."""
    if not run.trainer.sanity_checking:
        seen = run.progress.count_evaluated(stage, feed.dataloader_idx)
        if run.stores[stage].reports_steps:
            run.report.send_step(None, seen)
    position.settled = True
    if run.validation is not None:
        run.stop_if_asked()


def _check_batch_hooks(listeners: Listeners | None, arguments: int) -> None:
    if listeners is None:
        return
    for callback in listeners.callbacks:
        check_takes_loader_number(callback, 2 + arguments)  # trainer and module first
    if listeners.module is not None:
        check_takes_loader_number(listeners.module, arguments)


def bound_step(run: Run, name: str, offered: int) -> Callable[..., Any]:
    """Return a step method of the module in the run's precision and strategy."""
    form = f"{name}(batch, batch_idx{', dataloader_idx' if offered > 2 else ''})"
    given = positional(run.step_of(name), offered, form)
    strategy = run.parts.strategy
    bound = strategy.bind(run.parts.precision.wrap(given))
    return run.measured(f"[Strategy]{type(strategy).__name__}.{name}", bound)


def _no_gradients(run: Run, in_fit: bool) -> Any:
    if run.parts.inference_mode and not in_fit:
        return torch.inference_mode()
    return torch.no_grad()


def _results(run: Run, stage: str, loaders: int) -> list[dict[str, float]]:
    found: list[dict[str, Any]] = [{} for _ in range(loaders)]
    for slot, key, value in run.stores[stage].epoch_values():
        if not slot.options.logger:
            continue
        for number, values in enumerate(found):
            if slot.loader is None or slot.loader == number:
                values[key] = value
    return [read_floats(values) for values in found]
