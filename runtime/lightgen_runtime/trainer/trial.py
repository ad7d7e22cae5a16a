"""A run within a run: try the stage at hand, then be as if nothing had been tried."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightgen_runtime.callbacks.callback import Callback
from lightgen_runtime.core.module import attach
from lightgen_runtime.core.optim import OptimPlan, SchedulerConfig
from lightgen_runtime.loggers.logger import DummyLogger
from lightgen_runtime.loops.evaluate import evaluate
from lightgen_runtime.loops.fit import run_fit
from lightgen_runtime.loops.predict import run_predict
from lightgen_runtime.loops.progress import Progress
from lightgen_runtime.loops.run import Run
from lightgen_runtime.utilities.move_data import move_data_to_device
from lightgen_runtime.utilities.seed import collect_rng_states, set_rng_states

if TYPE_CHECKING:
    from lightgen_runtime.trainer.trainer import Trainer


class Trial:
    """Runs the current stage for trial, as often as wanted, on the state there is.

    Other callbacks than those of the trial, and the loggers, take no part.
    """

    def __init__(self, trainer: Trainer, outer: Run, fn: str) -> None:
        self._trainer = trainer
        self._outer = outer
        self._fn = fn
        self._stage = "train" if fn == "fit" else fn
        # Generators of loaders, by identity, as they were before the first attempt.
        self.drawn_from: dict[int, tuple[torch.Generator, Tensor]] = {}

    @property
    def loaders_given(self) -> bool:
        """Whether loaders were passed in, so that no hook makes others."""
        return self._outer.source.is_given(self._stage)

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """The optimizers of the run."""
        return self._outer.plan.optimizers

    def attempt(
        self,
        callbacks: list[Callback],
        schedulers: list[SchedulerConfig] | None = None,
        max_steps: int = -1,
        limit_batches: int | None = None,
        limit_val_batches: int | None = None,
    ) -> int | float:
        """Run the stage once, with loaders that are asked for anew.

        Args:
            callbacks: Who listens, beside the module.
            schedulers: In place of the run's own.
            max_steps: Optimizer steps of a fit.
            limit_batches: Batches of another stage.
            limit_val_batches: Batches of each validation in a fit.

        Returns:
            Samples in the largest dataset of the stage; infinity if one has no length.
        """
        trainer, outer = self._trainer, self._outer
        done = outer.progress.global_step
        changes: dict[str, Any] = {
            "loggers": [DummyLogger()] if outer.parts.loggers else [],
            "num_sanity_val_steps": 0,
            "limit_val_batches": limit_val_batches,
            "max_steps": None if max_steps == -1 else done + max_steps,
        }
        if self._fn != "fit":
            name = "val" if self._fn == "validate" else self._fn
            changes[f"limit_{name}_batches"] = limit_batches
        changes = {key: value for key, value in changes.items() if value is not None}
        parts = replace(outer.parts, **changes)
        progress = Progress()
        progress.load_state_dict(outer.progress.state_dict())
        progress.restart_epoch()
        source = outer.source.again(parts)
        run = Run(
            trainer,
            parts,
            outer.module,
            outer.datamodule,
            callbacks,
            source,
            progress,
        )
        run.plan = OptimPlan(
            outer.plan.optimizers,
            outer.plan.schedulers if schedulers is None else schedulers,
            outer.plan.names,
        )
        run.compiling = outer.compiling
        run.wrap_optimizers()
        run.validates = outer.validates
        run.resolve_hooks()
        with _standing_in(trainer, run, outer):
            self._note_generators(run)
            self._tell(run)
        return source.num_samples(self._stage)

    def _note_generators(self, run: Run) -> None:
        stages = ["validate"] * (self._fn == "fit" and run.validates) + [self._stage]
        for stage in stages:
            for feed in run.source.feeds(stage):
                for generator in feed.generators():
                    state = (generator, generator.get_state())
                    self.drawn_from.setdefault(id(generator), state)

    def _tell(self, run: Run) -> None:
        if self._fn == "fit":
            run_fit(run)
        elif self._fn == "predict":
            run_predict(run, False)
        else:
            evaluate(run, self._fn, run.source.feeds(self._fn), in_fit=False)


@contextmanager
def trial(trainer: Trainer, outer: Run, fn: str) -> Iterator[Trial]:
    """Open a trial of a run; afterwards everything of the run is as before.

    That is: weights, buffers and modes of the module, what it saves of its own in
    checkpoints, optimizers, schedulers, precision, counters, and random states. Loaders
    that hooks make are asked for again, because a trial may have changed what they
    depend on.
    """
    module, plan, precision = outer.module, outer.plan, outer.parts.precision
    saved = _on_host({"state_dict": module.state_dict()})
    module.on_save_checkpoint(saved)
    buffers = _on_host(dict(module.named_buffers()))
    modes = [(part, part.training) for part in module.modules()]
    stateful = [*plan.optimizers, *(config.scheduler for config in plan.schedulers)]
    states = [_on_host(each.state_dict()) for each in stateful]
    scaling = deepcopy(precision.state_dict())
    bare = [each for each in plan.optimizers if "step" not in vars(each)]
    rng = collect_rng_states()
    opened = Trial(trainer, outer, fn)
    try:
        yield opened
    finally:
        module.zero_grad()
        module.on_load_checkpoint(saved)
        module.load_state_dict(saved["state_dict"])
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                buffer.copy_(buffers[name])  # those that no `state_dict` holds too
        for part, training in modes:
            part.training = training
        for each, state in zip(stateful, states, strict=True):
            each.load_state_dict(state)
        for optimizer in bare:
            vars(optimizer).pop("step", None)  # where a scheduler of the trial counted
        precision.load_state_dict(scaling)
        outer.source.reload()
        for generator, drawn in opened.drawn_from.values():
            generator.set_state(drawn)
        set_rng_states(rng)


@contextmanager
def _standing_in(trainer: Trainer, run: Run, outer: Run) -> Iterator[None]:
    """Have `run` in place of the trainer's current one inside."""
    names = (
        "_run",
        "_parts",
        "callbacks",
        "progress",
        "_ckpt_path",
        "_should_stop",
    )
    former = {name: getattr(trainer, name) for name in names}
    stage, module = trainer.state.stage, run.module
    vars(trainer).update(
        _run=run,
        _parts=run.parts,
        callbacks=run.callbacks,
        progress=run.progress,
        _ckpt_path=None,
        _should_stop=False,
    )
    attach(module, run.context, run)
    try:
        yield
    finally:
        vars(trainer).update(former)
        attach(module, outer.context, outer)
        trainer.state.stage = stage


def _on_host(state: dict[str, Any]) -> dict[str, Any]:
    """Return a copy that takes no memory of a device."""
    detached: dict[str, Any] = move_data_to_device(state, torch.device("cpu"))
    return deepcopy(detached)
