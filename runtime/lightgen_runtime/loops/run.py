"""Everything one run has resolved before its first batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightgen_runtime.callbacks.callback import Callback
from lightgen_runtime.callbacks.checkpoint import Checkpoint
from lightgen_runtime.callbacks.early_stopping import EarlyStopping
from lightgen_runtime.core.hooks import STEP_RULES, HookTable, is_overridden
from lightgen_runtime.core.metrics import FORBIDDEN, LogContext, LogScope, MetricStore
from lightgen_runtime.core.module import LightningModule
from lightgen_runtime.core.optim import LightningOptimizer, OptimPlan
from lightgen_runtime.io.content_check import reading
from lightgen_runtime.io.schema import OWN_KEY
from lightgen_runtime.loops.agree import agree_on_epoch
from lightgen_runtime.loops.elastic import share_of
from lightgen_runtime.loops.predicted import Predicted
from lightgen_runtime.loops.report import Report
from lightgen_runtime.loops.scaling import Scaling
from lightgen_runtime.profilers.base import PassThroughProfiler

if TYPE_CHECKING:
    from lightgen_runtime.loops.compiling import Compiling
    from lightgen_runtime.loops.progress import Progress, ValidationPosition
    from lightgen_runtime.loops.source import DataSource
    from lightgen_runtime.loops.val_clock import ValidationClock
    from lightgen_runtime.trainer.build import TrainerParts
    from lightgen_runtime.trainer.trainer import Trainer

T = TypeVar("T")


class Run:
    """One call of `fit`, `validate`, `test` or `predict`, resolved.

    The loops read it, the module reaches the run through it, and nothing of it survives
    the call. Its attributes are plain slots: the step path reads many.

    Attributes:
        horizon: The batch, counted over the whole fit, after which something periodic
            (reporting, validation, stopping) is due next.
        clipping: What clips before each automatic step, if anything does.
        compiling: What compiles the steps, if they are.
        stop_agreed: Whether all processes know that one of them asked to stop.
        stop_epoch: Set to end the batches of the running epoch.
        stop_request: What saves and ends the fit, once a signal has asked for that.
        on_last_batch: Whether the running batch is its epoch's last.
        extra_epochs: Epochs after `max_epochs` that a callback asked for.
        failed_write: What raises, or warns of, the error of a thread that writes
            checkpoints; None if there was none.
        forward_only: Set at an epoch's start to compute its steps and train nothing.
        predicted: What a prediction has collected so far.
        share: Of a checkpoint, how its running epoch was shared out between processes,
            until the fit goes on from it; then what a new share of it has begun with, or
            None.
        scaling: What scales losses and steps optimizers in `16-mixed`; else None.
        resumed: Random states of the checkpoint that the fit goes on from, until it does.
        epoch_rng: Random states when the running epoch's loader was opened.
        loader_states: Where, by stage, loaders stood that the checkpoint's run has read,
            until this one reads them.
        validates: Whether there is anything to validate with.
        validation: Where the running validation of a fit stands; None outside of one.
        val_clock: What tells when to validate, if that goes by time.
        val_interval: Batches between validations; infinity at epoch ends only.
    """

    __slots__ = (
        "_base_scope",
        "_untoggled",
        "callbacks",
        "clipping",
        "compiling",
        "context",
        "datamodule",
        "epoch_rng",
        "extra_epochs",
        "failed_write",
        "forward_only",
        "hooks",
        "horizon",
        "loader_states",
        "module",
        "on_last_batch",
        "parts",
        "plan",
        "predicted",
        "progress",
        "report",
        "resumed",
        "scaling",
        "scopes",
        "share",
        "source",
        "stop_agreed",
        "stop_epoch",
        "stop_request",
        "stores",
        "trainer",
        "val_clock",
        "val_interval",
        "validates",
        "validation",
    )

    def __init__(
        self,
        trainer: Trainer,
        parts: TrainerParts,
        module: LightningModule,
        datamodule: Any,
        callbacks: list[Callback],
        source: DataSource,
        progress: Progress,
    ) -> None:
        self.trainer = trainer
        self.parts = parts
        self.module = module
        self.datamodule = datamodule
        self.callbacks = callbacks
        self.source = source
        self.progress = progress
        self.plan = OptimPlan()
        self.clipping: Callable[[Optimizer], None] | None = None
        self.compiling: Compiling | None = None
        self.scaling: Scaling | None = None
        loggers = parts.loggers if parts.strategy.is_global_zero else []
        alone = parts.strategy.world_size == 1
        self.report = Report(loggers, parts.strategy.root_device, alone)
        self.stores = {
            stage: MetricStore(stage) for stage in ("train", "validate", "test", "")
        }
        quiet = LogScope(
            "setup or another method outside of the loops", FORBIDDEN, self.stores[""]
        )
        self._base_scope = quiet
        self.context = LogContext(quiet)
        self.scopes = {
            name: self.stores[store].scope(name, rule)
            for name, (store, rule) in STEP_RULES.items()
        }
        self.hooks = HookTable(trainer, module, self.context)
        self.horizon = 0
        self.val_interval: int | float = float("inf")
        self.val_clock: ValidationClock | None = None
        self.validates = False
        self.stop_agreed = False
        self.stop_epoch = False
        self.stop_request: Callable[[], None] | None = None
        self.on_last_batch = False
        self.extra_epochs = 0
        self.failed_write: Callable[[], None] | None = None
        self.forward_only = False
        self.predicted = Predicted()
        self.resumed: dict[str, Any] | None = None
        self.epoch_rng: dict[str, Any] | None = None
        self.loader_states: dict[str, list[Any]] = {}
        self.share: dict[str, Any] | None = None
        self.validation: ValidationPosition | None = None
        self._untoggled: dict[Tensor, bool] = {}

    def resolve_hooks(self) -> None:
        """Find out who listens to what, as of now."""
        self.hooks.resolve(
            self.callbacks,
            Callback,
            LightningModule,
            self.stores,
            _is_watcher,
            self.measured,
        )

    def step_of(self, name: str) -> Callable[..., Any]:
        """Return a step method of the module, compiled if the run compiles."""
        method: Callable[..., Any] = getattr(self.module, name)
        return method if self.compiling is None else self.compiling.step(name, method)

    def measured(self, action: str, function: Callable[..., T]) -> Callable[..., T]:
        """Return what to call in place of `function`: itself, if nobody measures."""
        profiler = self.parts.profiler
        if isinstance(profiler, PassThroughProfiler):
            return function
        return profiler.wrap(action, function)

    def measured_items(self, action: str, iterator: Iterator[T]) -> Iterator[T]:
        """Return what to draw from in place of `iterator`: itself, if nobody measures."""
        profiler = self.parts.profiler
        if isinstance(profiler, PassThroughProfiler):
            return iterator
        return profiler.iterate(action, iterator)

    def agree_on_epoch(self) -> None:
        """Exchange the epoch's values of the active store with the other processes."""
        if self.report.active is not None:
            agree_on_epoch(self.report.active, self.parts.strategy, self.module)

    def agree_on_stop(self, has_values: bool = False) -> bool:
        """Let one process's request to stop count in all; called where all of them are.

        Args:
            has_values: Whether this process has some that all are to exchange. Asked in
                the same call, because at most reports there are none in any process.

        Returns:
            Whether any process has.
        """
        trainer, strategy = self.trainer, self.parts.strategy
        if strategy.world_size == 1:
            self.stop_agreed = trainer.should_stop
            return has_values
        own = torch.tensor([int(trainer.should_stop), int(has_values)])
        told = strategy.reduce(own, reduce_op="max").tolist()
        self.stop_agreed = bool(told[0])
        if self.stop_agreed and not trainer.should_stop:
            trainer.should_stop = True
        return bool(told[1])

    def note_stop(self, stop: bool) -> None:
        """Take a request to stop: the running batch is followed by a look at it.

        With several processes the look comes where all of them look: at reports,
        validations and epoch ends.
        """
        if self.parts.strategy.world_size == 1:
            self.stop_agreed = stop
            self.horizon = 0

    def note_failed_write(self, tell: Callable[[], None]) -> None:
        """Have `tell` called when the running batch is done; any thread may call this."""
        self.failed_write = tell
        self.horizon = 0

    def request_stop(self, stop: Callable[[], None]) -> None:
        """Have `stop` called at the next safe point: the running batch is the last."""
        self.stop_request = stop
        self.horizon = 0

    def stop_if_asked(self) -> None:
        """Be a safe point: whatever the fit's state is, a checkpoint of it is sound."""
        if self.stop_request is not None:
            self.stop_request()

    def take_flags(self, parts: TrainerParts) -> None:
        """Go on under changed flags: the running batch is followed by a look at them."""
        self.parts = parts
        self.clipping = self._configured_clipping()
        self.horizon = 0

    def between_hooks(self) -> None:
        """Let `self.log` refuse until the next hook or step."""
        self.context.scope = self._base_scope

    def go_on_from(self, former: Run) -> None:
        """Take over, from a run of the same module, what a checkpoint must still hold."""
        self.plan, self.scaling = former.plan, former.scaling
        self.epoch_rng = former.epoch_rng
        self.stores["train"] = former.stores["train"]
        self.share = share_of(former)
        self.loader_states = former.states_of_loaders()

    def states_of_loaders(self) -> dict[str, list[Any]]:
        """Return where the loaders of training and of validation stand."""
        states = dict(self.loader_states)
        source, position = self.source, self.validation
        taken: dict[int, int] = {}
        if position is not None and position.rng is not None:
            taken[position.loader] = position.batches
        if "train" not in states and source.opened("train"):
            states["train"] = [source.train().state(self.progress.batch_idx)]
        if "validate" not in states and source.opened("validate"):
            states["validate"] = [
                feed.state(taken.get(number))
                for number, feed in enumerate(source.feeds("validate"))
            ]
        return states

    def restore_loaders(self, stage: str) -> None:
        """Let the stage's loaders go on where the checkpoint's run left them."""
        with reading(f"{OWN_KEY}.loader", "ckpt_path"):
            states = self.loader_states.pop(stage, [])
            for feed, state in zip(self.source.feeds(stage), states, strict=False):
                feed.restore(state)

    def optimized_parameters(self) -> list[Tensor]:
        """Return the parameters of all optimizers, in order."""
        return [
            parameter
            for optimizer in self.plan.optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
        ]

    def overrides(self, name: str) -> bool:
        """Tell whether the module brings its own version of a hook."""
        return is_overridden(name, self.module, LightningModule)

    # ---- optimization, as far as the module and its optimizers take part ----

    def wrap_optimizers(self) -> None:
        """Make the wrappers that `self.optimizers()` hands out; resolve what steps do."""
        self.clipping = self._configured_clipping()
        step, optimizers = self.counted_step, self.plan.optimizers
        scaler = self.parts.precision.scaler
        if scaler is not None and scaler.is_enabled():
            self.scaling = Scaling(scaler, optimizers, self.progress)
            step = partial(self._scaled_step, self.scaling)
        self.plan.wrapped = [
            LightningOptimizer.wrap(
                optimizer, step, self.toggle, self.parts.strategy.no_sync
            )
            for optimizer in optimizers
        ]

    def counted_step(
        self, optimizer: Optimizer, closure: Callable[[], Any] | None, **kwargs: Any
    ) -> Any:
        """Step an optimizer from user code: hooks, clipping and counters included."""
        automatic = self.module.automatic_optimization
        clip = self.clipping if automatic else None

        def with_hooks() -> Any:
            result = closure() if closure is not None else None
            if self.hooks.on_before_optimizer_step is not None:
                self.hooks.fire(self.hooks.on_before_optimizer_step, optimizer)
            if clip is not None:
                clip(optimizer)
            return result

        result = optimizer.step(with_hooks, **kwargs)
        if not automatic:
            self.progress.global_step += 1
        return result

    def _scaled_step(
        self,
        scaling: Scaling,
        optimizer: Optimizer,
        closure: Callable[[], Any] | None,
        **kwargs: Any,
    ) -> Any:
        """Step as `counted_step` does, on gradients that are scaled."""
        automatic = self.module.automatic_optimization
        result = closure() if closure is not None else None
        scaling.unscale(optimizer)
        if self.hooks.on_before_optimizer_step is not None:
            self.hooks.fire(self.hooks.on_before_optimizer_step, optimizer)
        if automatic and self.clipping is not None:
            self.clipping(optimizer)
        scaling.step(optimizer, **kwargs)
        if automatic:
            scaling.update()
        else:
            self.progress.global_step += 1
        return result

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Compute gradients for user code, with the hooks around it."""
        if not isinstance(loss, Tensor):
            raise TypeError(
                f"`manual_backward` got {type(loss).__name__}; a tensor is needed"
            )
        if self.scaling is not None:
            loss = self.scaling.scale(loss)
        self.hooks.fire(self.hooks.on_before_backward, loss)
        arm_reducer = self.parts.strategy.arm_reducer
        if arm_reducer is not None:
            arm_reducer(loss)
        self.module.backward(loss, *args, **kwargs)
        self.hooks.fire(self.hooks.on_after_backward)

    def _configured_clipping(self) -> Callable[[Optimizer], None] | None:
        """Return what clips before each step: the module's way, the flags', or None."""
        parts = self.parts
        clip_val, algorithm = parts.gradient_clip_val, parts.gradient_clip_algorithm

        def by_module(optimizer: Optimizer) -> None:
            self.context.scope = self.scopes["configure_gradient_clipping"]
            self.module.configure_gradient_clipping(
                optimizer,
                gradient_clip_val=clip_val,
                gradient_clip_algorithm=algorithm,
            )

        def by_flags(optimizer: Optimizer) -> None:
            parts.precision.clip_gradients(
                optimizer, clip_val or 0.0, algorithm or "norm"
            )

        if self.overrides("configure_gradient_clipping"):
            return by_module
        return by_flags if clip_val else None

    def clip(
        self,
        optimizer: Optimizer | LightningOptimizer,
        clip_val: float,
        algorithm: str,
    ) -> None:
        """Clip the gradients of one optimizer's parameters for user code, in place.

        Compat: gradients that were scaled are given their true size first, also by hand.
        """
        bare = _bare(optimizer)
        if self.scaling is not None and not self.module.automatic_optimization:
            self.scaling.unscale(bare)
        self.parts.precision.clip_gradients(bare, clip_val, algorithm)

    def toggle(self, optimizer: Optimizer | LightningOptimizer, on: bool) -> None:
        """Freeze the parameters that only other optimizers have, or thaw them."""
        if not on:
            for parameter, required in self._untoggled.items():
                parameter.requires_grad = required
            self._untoggled = {}
            return
        own = {p for group in _bare(optimizer).param_groups for p in group["params"]}
        others = {
            p
            for other in self.plan.optimizers
            for group in other.param_groups
            for p in group["params"]
        } - own
        self._untoggled = {p: p.requires_grad for p in others}
        for parameter in others:
            parameter.requires_grad = False


def _bare(optimizer: Optimizer | LightningOptimizer) -> Optimizer:
    return (
        optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
    )


def _is_watcher(callback: Callback) -> bool:
    return isinstance(callback, (Checkpoint, EarlyStopping))
