"""The story of a fit: epochs, batches, what is due in between, and when to stop.

Everything that can be known before the first batch is known before it. After each batch
one comparison with `run.horizon` decides whether anything periodic is due at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from lightgen_runtime.io.content_check import reading
from lightgen_runtime.io.schema import (
    BATCH_END,
    EPOCH_END,
    EPOCH_START,
    OWN_KEY,
    SETTLED,
    STOPPED,
    VALIDATED,
)
from lightgen_runtime.loops import own_generators
from lightgen_runtime.loops.agree import (
    agree_on_step,
    slots_of_epoch,
    slots_of_step,
)
from lightgen_runtime.loops.elastic import share_anew
from lightgen_runtime.loops.evaluate import evaluate, sanity_check
from lightgen_runtime.loops.outputs import StepFn
from lightgen_runtime.loops.position import random_states, set_random_states
from lightgen_runtime.loops.samplers import announce_epoch
from lightgen_runtime.loops.schedule import SchedulerStepper
from lightgen_runtime.loops.step import choose_step, manual_step
from lightgen_runtime.loops.val_clock import ValidationClock
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.rank_zero import rank_zero_info, rank_zero_warn

if TYPE_CHECKING:
    from lightgen_runtime.loops.feed import Feed
    from lightgen_runtime.loops.run import Run


def run_fit(run: Run) -> None:
    """Train until a limit is reached or somebody asks to stop.

    Args:
        run: Resolved for fitting: model placed, optimizers made, state restored.
    """
    hooks, report = run.hooks, run.report
    if run.trainer.ckpt_path is None:
        sanity_check(run)
    if run.parts.limit_train_batches == 0:
        rank_zero_info("`Trainer.fit` has nothing to do: `limit_train_batches` is 0")
        return
    run.trainer.enter_stage("train")
    feed = run.source.train()
    run.agree_on_stop()
    if (reason := _why_over(run)) is not None:
        rank_zero_info(f"`Trainer.fit` has nothing to do: {reason}")
        return
    _plan_epoch(run, feed)
    step = choose_step(run)
    schedulers = SchedulerStepper(run)
    train_epoch = run.measured("run_training_epoch", _train_epoch)
    if not run.module.training:
        rank_zero_warn(
            f"{type(run.module).__name__} is in evaluation mode and is trained like that; "
            "call `.train()` on it before `fit` unless this is wanted"
        )
    report.enter(run.stores["train"])
    if _epoch_validates(run):
        run.source.feeds("validate")  # so that progress bars know their number
    if _reads_on(run):
        report.restore_loggers()
    hooks.fire(hooks.on_train_start)
    first_epoch = run.progress.current_epoch
    while (reason := _why_over(run)) is None:
        if run.progress.current_epoch != first_epoch:
            _reload_if_due(run)
        train_epoch(run, run.source.train(), step, schedulers)
        run.resolve_hooks()
    rank_zero_info(f"`Trainer.fit` stopped: {reason}")
    hooks.fire(hooks.on_train_end)


def _train_epoch(
    run: Run, feed: Feed, step: StepFn, schedulers: SchedulerStepper
) -> None:
    hooks, progress, context = run.hooks, run.progress, run.context
    run.stop_epoch = False
    iterator = run.measured_items(
        "[_TrainingEpochLoop].train_dataloader_next",
        _start_epoch(run, feed, schedulers),
    )
    # What callbacks may have changed at the epoch's start:
    run.parts.strategy.note_trainable()
    schedulers.select()
    _plan_epoch(run, feed)
    accumulate = run.trainer.accumulate_grad_batches
    trains = not run.forward_only
    step = step if trains else manual_step(run)
    _set_horizon(run, feed, schedulers)
    run.report.between_batches = False
    run.stop_epoch = run.stop_epoch or _may_stop(run)
    batches = feed.batches(iterator, progress.batch_idx)
    # Nothing is left to read if a stop was asked for at the epoch's start, or all of it
    # was read before a resume.
    over = run.stop_epoch or progress.is_last_batch
    for batch_idx, batch, is_last in () if over else batches:
        context.batch, context.batch_size = batch, None
        run.on_last_batch = is_last
        seen = progress.total_batches + 1
        context.keep = is_last or seen >= run.horizon
        if hooks.on_train_batch_start is not None and hooks.ask(
            hooks.on_train_batch_start, batch, batch_idx
        ):
            _skip_the_rest(run, schedulers)
            break
        in_window = batch_idx % accumulate
        closes = trains and (is_last or in_window == accumulate - 1)
        divisor = accumulate
        if accumulate > 1:
            divisor = _window_length(
                run, feed, accumulate, batch_idx, in_window, is_last
            )
        outputs = step(batch, batch_idx, in_window == 0, closes, divisor)

        progress.batch_idx, progress.total_batches = batch_idx + 1, seen
        progress.is_last_batch = is_last
        progress.phase = BATCH_END
        if closes and schedulers.per_step:
            schedulers.step(schedulers.per_step, progress.global_step)
        if is_last and schedulers.per_epoch:
            schedulers.step(schedulers.per_epoch, progress.current_epoch + 1)
        if hooks.on_train_batch_end is not None:
            hooks.fire(hooks.on_train_batch_end, outputs, batch, batch_idx)
        due = is_last or seen >= run.horizon
        if due:
            _after_batch(run, schedulers, closes)
        elif closes:
            progress.batches_that_stepped += 1
        progress.phase = SETTLED
        if due:
            if run.stop_epoch:
                break
            _set_horizon(run, feed, schedulers)
    _end_epoch(run, schedulers)


def _skip_the_rest(run: Run, schedulers: SchedulerStepper) -> None:
    """Take the batch that a hook refused for the last of its epoch."""
    progress = run.progress
    progress.total_batches += 1
    progress.is_last_batch = run.on_last_batch = True
    schedulers.step(schedulers.per_step, progress.global_step)
    schedulers.step(schedulers.per_epoch, progress.current_epoch + 1)


def _reload_if_due(run: Run) -> None:
    every, epoch = (
        run.parts.reload_dataloaders_every_n_epochs,
        run.progress.current_epoch,
    )
    if every and epoch % every == 0 and run.progress.phase == EPOCH_START:
        run.source.forget()
        run.progress.evaluated.clear()  # the axis of other loaders
        _plan_epoch(run, run.source.train())


def _start_epoch(run: Run, feed: Feed, schedulers: SchedulerStepper) -> Iterator[Any]:
    """Begin an epoch, or go back to where a checkpoint was written inside one."""
    progress, resumed = run.progress, run.resumed
    run.restore_loaders("train")
    run.resumed = None
    begun = progress.phase != EPOCH_START or feed.begins_inside
    if resumed is not None and begun:
        return _reenter_epoch(run, feed, schedulers, resumed)
    if resumed is not None:
        _set_random_states(run, feed, resumed["rng"])
    run.share = None
    run.report.enter(run.stores["train"])
    announce_epoch(feed.loader, progress.current_epoch)
    run.hooks.fire(run.hooks.on_train_epoch_start)
    run.epoch_rng = random_states(feed.loader)
    # Not 0 after a checkpoint of Lightning's, which holds no random states.
    return feed.open(skip=progress.batch_idx)


def _reenter_epoch(
    run: Run, feed: Feed, schedulers: SchedulerStepper, resumed: dict[str, Any]
) -> Iterator[Any]:
    """Stand where the checkpoint was written, and do what was still due there."""
    progress = run.progress
    run.epoch_rng = resumed["epoch_rng"]
    over = progress.is_last_batch
    iterator: Iterator[Any] = iter(())
    anew = not over and share_anew(run, feed, resumed["gradients"])
    begun = resumed["epoch_rng"]
    if anew:
        _set_random_states(run, feed, resumed["rng"])
        begun = run.epoch_rng = random_states(feed.loader)
    if over:
        run.share = None
        feed.finish()
    else:
        _plan_epoch(run, feed)
        # Random numbers first as the epoch's loader met them, then as they were saved.
        set_random_states(feed.loader, begun)
        announce_epoch(feed.loader, progress.current_epoch)
        iterator = feed.open(skip=progress.batch_idx)
    if not anew:
        _set_random_states(run, feed, resumed["rng"])
    for parameter, gradient in zip(
        run.optimized_parameters(), resumed.get("gradients", []), strict=False
    ):
        parameter.grad = None if gradient is None else gradient.to(parameter.device)
    if progress.phase in (BATCH_END, VALIDATED):
        window = run.trainer.accumulate_grad_batches
        closed = progress.is_last_batch or progress.batch_idx % window == 0
        closed = closed and not run.forward_only
        _after_batch(run, schedulers, closed)
    return iter(()) if over or run.stop_epoch else iterator


def _set_random_states(run: Run, feed: Feed, states: dict[str, Any]) -> None:
    set_random_states(feed.loader, states)
    with reading(f"{OWN_KEY}.rng", "ckpt_path"):
        own = own_generators.generators_of_module(run.module)
        own_generators.restore(own, states.get("module", []))


def _after_batch(run: Run, schedulers: SchedulerStepper, closed: bool) -> None:
    """Do what is due after a batch: report, validate, decide whether to go on.

    Args:
        run: The run.
        schedulers: Its schedulers.
        closed: Whether the batch closed an accumulation window.
    """
    progress, parts = run.progress, run.parts
    if run.failed_write is not None:
        tell, run.failed_write = run.failed_write, None
        tell()
    stepped = progress.batches_that_stepped + 1
    if progress.phase == BATCH_END:
        every = parts.log_every_n_steps
        due = stepped % every == 0 or run.stop_agreed if every else False
        reports = closed and due
        inside = run.validation is not None  # of a checkpoint: all before it is done
        ends = progress.is_last_batch or _steps_reached(run)
        # Whether loggers, schedulers or callbacks read now what the step has logged.
        read = reports or ends or (closed and schedulers.may_read(progress.global_step))
        asked = read and not inside
        if asked and run.agree_on_stop(bool(slots_of_step(run.stores["train"]))):
            agree_on_step(run.stores["train"], parts.strategy)
        if reports and not inside:
            run.report.send_step(progress.current_epoch, stepped - 1)
        if inside or _validation_due(run):
            _validate(run, closed)
            run.agree_on_stop()
    if closed:
        schedulers.step(schedulers.plateau_per_step, progress.global_step)
        progress.batches_that_stepped = stepped
    run.stop_epoch = _steps_reached(run) or _may_stop(run)
    if not run.stop_epoch:
        progress.phase = SETTLED
        run.stop_if_asked()


def _validate(run: Run, closed: bool) -> None:
    hooks, report = run.hooks, run.report
    if closed and run.validation is None:
        if hooks.on_validation_model_zero_grad is None:
            run.module.zero_grad()
        else:
            hooks.fire(hooks.on_validation_model_zero_grad)
    feeds = run.source.renewed("validate")
    run.restore_loaders("validate")
    if feeds:  # none if a hook returned an empty list
        evaluate(run, "validate", feeds, in_fit=True)
        run.trainer.enter_stage("train")
        report.enter(run.stores["train"], between_batches=False)
    if run.val_clock is not None:
        run.val_clock.restart(run.progress.total_batches)


def _end_epoch(run: Run, schedulers: SchedulerStepper) -> None:
    progress, report = run.progress, run.report
    report.between_batches = True
    run.agree_on_epoch()
    if progress.phase != EPOCH_END:
        progress.phase = EPOCH_END
        run.context.leave_batch()
        run.hooks.fire(run.hooks.on_train_epoch_end)
        run.agree_on_epoch()  # for what was logged there
        run.hooks.fire_watchers(run.hooks.on_train_epoch_end)
    if run.agree_on_stop(bool(slots_of_epoch(run.stores["train"]))):
        run.agree_on_epoch()  # for what watchers have logged
    if progress.is_last_batch:
        schedulers.step(schedulers.plateau_per_epoch, progress.current_epoch + 1)
    report.send_epoch(progress.current_epoch, progress.batches_that_stepped - 1)
    if run.stop_epoch and not progress.is_last_batch:
        progress.stop_inside_epoch()
    else:
        run.stores["train"].reset()
        progress.start_next_epoch()
        feed = run.source.train()
        feed.end_pass()
        feed.read_whole()
        run.share = None


def _set_horizon(run: Run, feed: Feed, schedulers: SchedulerStepper) -> None:
    """Find the next batch after which anything can be due; too early does no harm."""
    progress, parts = run.progress, run.parts
    every = parts.log_every_n_steps
    waits = [every - progress.batches_that_stepped % every] if every else []
    if run.validates and isinstance(run.val_interval, int):
        waits.append(run.val_interval - _val_count(run) % run.val_interval)
    if run.val_clock is not None and _epoch_validates(run):
        waits.append(run.val_clock.next_look - progress.total_batches)
    by_hand = not run.module.automatic_optimization
    if parts.max_steps != -1:
        # By hand, a batch may take any number of steps.
        waits.append(1 if by_hand else parts.max_steps - progress.global_step)
    if schedulers.plateau_per_step or run.stop_agreed:
        waits.append(1)
    run.horizon = progress.total_batches + max(1, min(waits, default=1))
    # Asked for while this was computed, by a signal or a thread:
    if run.stop_request is not None or run.failed_write is not None:
        run.horizon = 0


def _window_length(
    run: Run,
    feed: Feed,
    accumulate: int,
    batch_idx: int,
    in_window: int,
    is_last: bool,
) -> int:
    """Return how many batches the accumulation window of this batch really has.

    Compat: Lightning divides the last, shorter window of an epoch by the full length.
    """
    if feed.sized:
        return min(accumulate, int(feed.num_batches) - batch_idx + in_window)
    length = in_window + 1
    if is_last and length < accumulate:
        # Without a length only the last batch tells; make up for what was divided.
        for optimizer in run.plan.optimizers:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.grad.mul_(accumulate / length)
        return length
    return accumulate


def _why_over(run: Run) -> str | None:
    progress, parts = run.progress, run.parts
    if progress.phase not in (EPOCH_START, SETTLED, STOPPED):
        return None  # resumed inside an epoch, which is to be finished first
    if _steps_reached(run):
        return f"`max_steps={parts.max_steps}` reached."
    last = parts.max_epochs + run.extra_epochs
    if parts.max_epochs != -1 and progress.current_epoch >= last:
        return f"`max_epochs={parts.max_epochs}` reached."
    if _may_stop(run):
        return "a stop was requested."
    return None


def _reads_on(run: Run) -> bool:
    """Tell whether batches follow, and not only what is due at the end of an epoch."""
    last = run.parts.max_epochs + run.extra_epochs
    epochs_left = run.parts.max_epochs == -1 or run.progress.epochs_done < last
    return epochs_left and not _steps_reached(run)


def _steps_reached(run: Run) -> bool:
    return run.parts.max_steps != -1 and run.progress.global_step >= run.parts.max_steps


def _may_stop(run: Run) -> bool:
    """Tell whether a stop is requested and the minima allow it."""
    progress, parts = run.progress, run.parts
    if not run.stop_agreed:
        return False
    enough_epochs = not parts.min_epochs or progress.current_epoch >= parts.min_epochs
    enough_steps = not parts.min_steps or progress.global_step >= parts.min_steps
    return enough_epochs and enough_steps


def _plan_epoch(run: Run, feed: Feed) -> None:
    """Find out how many batches it has and when to validate, from the flags as of now."""
    feed.read_together(run.parts.strategy)
    run.val_interval = _val_interval(run, feed)
    interval, clock = run.parts.val_check_interval, run.val_clock
    if not run.validates or not isinstance(interval, timedelta):
        run.val_clock = None
    elif clock is None or clock.interval != interval:
        run.val_clock = ValidationClock(
            interval, run.parts.strategy, run.progress.total_batches
        )


def _val_interval(run: Run, feed: Feed) -> int | float:
    """Return after how many batches validation is due: infinity at the epoch's end."""
    interval, flag = run.parts.val_check_interval, "val_check_interval"
    batches = feed.num_batches
    if isinstance(interval, timedelta):
        return float("inf")  # not by batches; `run.val_clock` tells
    if isinstance(interval, int):
        counts_epochs = run.parts.check_val_every_n_epoch is not None
        most = max(batches, feed.epoch_batches)
        if interval > most and counts_epochs and run.validates:
            raise MisconfigurationException(
                f"`Trainer({flag}={interval})`: an epoch has {most} batches. Use at most "
                "that, or check_val_every_n_epoch=None to count across epochs."
            )
        return interval
    if interval == 1.0:
        return batches if feed.sized else float("inf")
    if not isinstance(batches, int):
        if not run.validates:
            return float("inf")
        raise MisconfigurationException(
            f"`Trainer({flag}={interval})`: the training loader has no length to take a "
            "share of; use 1.0 or a whole number of batches"
        )
    return max(1, int(batches * interval))


def _val_count(run: Run) -> int:
    progress = run.progress
    if run.parts.check_val_every_n_epoch is None:
        return progress.total_batches
    return progress.batch_idx


def _epoch_validates(run: Run) -> bool:
    every = run.parts.check_val_every_n_epoch
    due = every is None or (run.progress.current_epoch + 1) % every == 0
    return run.validates and due


def _validation_due(run: Run) -> bool:
    if not _epoch_validates(run):
        return False
    if _may_stop(run):
        return True
    if run.val_clock is not None:
        return run.val_clock.due(run.progress.total_batches)
    if isinstance(run.val_interval, int):
        return _val_count(run) % run.val_interval == 0
    return run.progress.is_last_batch
