"""When learning-rate schedulers step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightgen_runtime.core.hooks import is_overridden
from lightgen_runtime.core.module import LightningModule
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.nearest import did_you_mean
from lightgen_runtime.utilities.rank_zero import rank_zero_warn

if TYPE_CHECKING:
    from lightgen_runtime.core.optim import SchedulerConfig
    from lightgen_runtime.loops.run import Run


class SchedulerStepper:
    """Steps a run's schedulers at the moments that the loop announces.

    Compat: `frequency` counts optimizer steps (or epochs) over the whole run; Lightning
    counts batches and starts again at each epoch. A scheduler waits for an optimizer
    whose step a scaler left out; Lightning's goes on.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._overridden = is_overridden(
            "lr_scheduler_step", run.module, LightningModule
        )
        self.select()

    def select(self) -> None:
        """Sort the run's schedulers, as of now, by when they step."""
        self.per_step = self._those("step", plateau=False)
        self.per_epoch = self._those("epoch", plateau=False)
        self.plateau_per_step = self._those("step", plateau=True)
        self.plateau_per_epoch = self._those("epoch", plateau=True)

    def _those(self, interval: str, plateau: bool) -> list[SchedulerConfig]:
        run = self._run
        return [
            config
            for config in run.plan.schedulers
            if run.module.automatic_optimization
            and config.interval == interval
            and config.reduce_on_plateau is plateau
        ]

    def may_read(self, count: int) -> bool:
        """Tell whether a plateau scheduler may read a value after this many steps."""
        scaling = self._run.scaling  # which may have left some of them out
        return any(
            scaling is not None or count % config.frequency == 0
            for config in self.plateau_per_step
        )

    def step(self, configs: list[SchedulerConfig], count: int) -> None:
        """Step those of `configs` whose frequency divides `count`.

        Args:
            configs: One of this object's four lists.
            count: Optimizer steps, or epochs, done so far in the whole run. Steps that a
                scaler left out do not count for schedulers.
        """
        scaling = self._run.scaling
        for config in configs:
            done: int | None = count
            if scaling is not None and config.interval == "step":
                done = scaling.steps_of(config.scheduler)
            if done is None or done % config.frequency:
                continue
            if not config.reduce_on_plateau:
                self._step_one(config.scheduler, None)
                continue
            found, metric = self._metric(config)
            if found:
                self._step_one(config.scheduler, metric)

    def _step_one(self, scheduler: Any, metric: Any) -> None:
        run = self._run
        if self._overridden:
            run.context.scope = run.scopes["lr_scheduler_step"]
            run.module.lr_scheduler_step(scheduler, metric)
        elif metric is None:
            scheduler.step()
        else:
            scheduler.step(metric)

    def _metric(self, config: SchedulerConfig) -> tuple[bool, Any]:
        metrics = self._run.report.callback_metrics
        monitor = str(config.monitor)
        if monitor in metrics:
            return True, metrics[monitor]
        message = (
            f"{type(config.scheduler).__name__} watches {monitor!r}, which nobody has "
            f"logged; logged are {sorted(metrics)}.{did_you_mean(monitor, metrics)}"
        )
        if config.strict:
            raise MisconfigurationException(
                f"{message} Log it with `self.log({monitor!r}, ...)`, or set "
                '"strict": False in the lr_scheduler dictionary to go on without.'
            )
        rank_zero_warn(f"{message} The scheduler did not step.")
        return False, None
