"""What the optimizers of a project's run would do, asked of the code itself.

    python -m lightgen_runtime.cli.probe PACKAGE [--step] fit --config config.yaml

builds model, data and trainer as the project's own program would, has the optimizers
made, follows every schedule to its end, trains nothing and writes nothing. The last line
of stdout is one JSON object. With `--step`, one batch is trained and validated too.
"""

from __future__ import annotations

import contextlib
import copy
import json
import runpy
import sys
import warnings
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

import lightgen_runtime.cli
from lightgen_runtime.callbacks.callback import Callback
from lightgen_runtime.callbacks.checkpoint import Checkpoint
from lightgen_runtime.callbacks.progress import ProgressBar
from lightgen_runtime.cli.lightning_cli import LightningCLI
from lightgen_runtime.cli.project_cli import ProjectCLI
from lightgen_runtime.core.optim import OptimPlan
from lightgen_runtime.trainer.trainer import Trainer

MOST_STEPS = 1_000_000
"""Longer schedules are followed no further."""
MOST_POINTS = 10_000
"""Longer curves keep every so many points, and both ends."""


@dataclass
class Probed:
    """What was found.

    Attributes:
        optimizers: Class and groups of each optimizer.
        unoptimized: Trainable parameters that no optimizer has.
        shared: Parameters that are in two groups.
        schedules: Class, interval and monitor of each scheduler.
        total_steps: Optimizer steps of the whole run; None without an end.
        steps_per_epoch: Optimizer steps of one epoch; None if unknown.
        curve: For each step kept, its number and every group's learning rate in it.
        step: What one batch logged, if one was trained.
    """

    optimizers: list[dict[str, Any]] = field(default_factory=list)
    unoptimized: list[str] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)
    schedules: list[dict[str, Any]] = field(default_factory=list)
    total_steps: int | None = None
    steps_per_epoch: int | None = None
    curve: list[tuple[int, list[float]]] = field(default_factory=list)
    step: dict[str, float] | None = None


class ProbeCLI(ProjectCLI):
    """Builds what `fit` would, and looks at its optimizers instead of training."""

    steps_too = False
    is_looking = False

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the run's trainer without what writes and prints."""
        config = self._get(self.config_init, "trainer")
        kept = [
            callback
            for callback in config.get("callbacks") or []
            if not isinstance(callback, (Checkpoint, ProgressBar))
        ]
        self._quiet = {
            "callbacks": kept,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
        }
        return LightningCLI.instantiate_trainer(self, **{**kwargs, **self._quiet})

    def _run_subcommand(self, subcommand: str) -> None:
        copied = copy.deepcopy(self.model) if self.steps_too else None
        probed = Probed()
        ProbeCLI.is_looking = True
        look = _Look(probed)
        self.trainer.callbacks.append(look)
        with contextlib.suppress(_SeenEnough):
            self.trainer.fit(self.model, datamodule=self.datamodule)
        if copied is not None:
            flags = {**self._quiet, "fast_dev_run": 1}
            trainer = LightningCLI.instantiate_trainer(self, **flags)
            trainer.fit(copied, datamodule=self.datamodule)
            metrics = trainer.callback_metrics.items()
            probed.step = {name: float(value) for name, value in metrics}
        self._json_line = f"{json.dumps(asdict(probed))}\n"


class _SeenEnough(Exception):
    """Ends the fit once its optimizers have been looked at."""


class _Look(Callback):
    """Looks at a fit's optimizers when they are there and nothing has run."""

    def __init__(self, probed: Probed) -> None:
        self.probed = probed

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """See `Callback`."""
        plan: OptimPlan = trainer._run.plan
        names = {parameter: name for name, parameter in pl_module.named_parameters()}
        look_at_groups(plan, names, self.probed)
        total = trainer.estimated_stepping_batches
        epochs = trainer.max_epochs
        if total != float("inf"):
            self.probed.total_steps = int(total)
            if epochs and epochs > 0:
                self.probed.steps_per_epoch = max(1, int(total) // epochs)
        follow(plan, self.probed)
        raise _SeenEnough


def look_at_groups(
    plan: OptimPlan, names: dict[nn.Parameter, str], probed: Probed
) -> None:
    """Record every group, and which parameters are in none or in two."""
    seen: list[nn.Parameter] = []
    for optimizer in plan.optimizers:
        groups = []
        for group in optimizer.param_groups:
            seen += group["params"]
            groups.append(
                {
                    "name": group.get("name"),
                    "tensors": len(group["params"]),
                    "parameters": sum(p.numel() for p in group["params"]),
                    "lr": float(group["lr"]),
                    "weight_decay": group.get("weight_decay"),
                }
            )
        probed.optimizers.append({"class": type(optimizer).__name__, "groups": groups})
    probed.shared = (
        sorted({names.get(p, "?") for p in seen if seen.count(p) > 1})
        if (len(set(seen)) < len(seen))
        else []
    )
    present = set(seen)
    probed.unoptimized = [
        name for p, name in names.items() if p.requires_grad and p not in present
    ]
    for config in plan.schedulers:
        probed.schedules.append(
            {
                "class": type(config.scheduler).__name__,
                "interval": config.interval,
                "frequency": config.frequency,
                "monitor": config.monitor,
            }
        )


def follow(plan: OptimPlan, probed: Probed) -> None:
    """Step the schedulers to the end of the run, and record the rates on the way.

    What follows a metric stays: nobody knows the metric.
    """
    total = probed.total_steps
    if total is None:
        return
    total = min(total, MOST_STEPS)
    every = -(-total // MOST_POINTS)
    per_epoch = probed.steps_per_epoch or total
    blind = [c for c in plan.schedulers if not c.reduce_on_plateau]
    with warnings.catch_warnings():
        # The optimizers do not step here: no gradient is there to step by.
        warnings.filterwarnings("ignore", "Detected call of", UserWarning)
        for step in range(total):
            if step % every == 0 or step == total - 1:
                probed.curve.append((step, _rates(plan)))
            if step == total - 1:
                break
            ends_epoch = (step + 1) % per_epoch == 0
            for config in blind:
                count = (
                    step + 1 if config.interval == "step" else (step + 1) // per_epoch
                )
                due = config.interval == "step" or ends_epoch
                if due and count % config.frequency == 0:
                    config.scheduler.step()


def _rates(plan: OptimPlan) -> list[float]:
    return [float(g["lr"]) for o in plan.optimizers for g in o.param_groups]


def _fit_for_the_probe_alone() -> None:
    """End a program that would train without asking the probe, and so for real."""
    fit = Trainer.fit

    def guarded(trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if not ProbeCLI.is_looking:
            sys.exit()
        fit(trainer, *args, **kwargs)

    Trainer.fit = guarded  # type: ignore[assignment, method-assign]


def main() -> None:
    """Run the package's own program with the probe in the place of its command line."""
    package, *arguments = sys.argv[1:]
    if arguments[:1] == ["--step"]:
        ProbeCLI.steps_too = True
        arguments = arguments[1:]
    lightgen_runtime.cli.ProjectCLI = ProbeCLI  # type: ignore[misc]
    _fit_for_the_probe_alone()
    sys.argv = [package, *arguments]
    runpy.run_module(package, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
