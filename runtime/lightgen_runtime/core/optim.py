"""From whatever `configure_optimizers` returns to one normal form.

Owns the accepted return shapes and the wrapper that `self.optimizers()` hands out. When
schedulers step is the loop's business (`loops/schedule.py`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.optim import LBFGS, Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau

from lightgen_runtime.core.optim_record import OptimRecord
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.nearest import did_you_mean, nearest
from lightgen_runtime.utilities.rank_zero import rank_zero_warn

ACCEPTED_FORMS = """\
accepted are
  - an optimizer
  - a list or tuple of optimizers
  - two lists: [optimizers], [schedulers or scheduler dictionaries]
  - a dictionary with "optimizer" and, if wanted, "lr_scheduler" and "monitor"
  - a list or tuple of such dictionaries
  - a dictionary of named optimizers, or of such dictionaries by name
  - None: nothing is optimized"""

_SCHEDULER_KEYS = (
    "scheduler",
    "interval",
    "frequency",
    "monitor",
    "strict",
    "reduce_on_plateau",
    "name",
)


@dataclass
class SchedulerConfig:
    """One scheduler and when it steps.

    Attributes:
        scheduler: The scheduler.
        interval: "epoch" or "step".
        frequency: Every how many epochs or optimizer steps, counted over the whole run.
            Compat: Lightning counts batches within the epoch.
        monitor: Metric handed to a `ReduceLROnPlateau`.
        strict: Whether a missing metric is an error (else a warning).
        reduce_on_plateau: Whether `step` takes the metric.
        name: Label for learning-rate logging.
    """

    scheduler: Any
    interval: str = "epoch"
    frequency: int = 1
    monitor: str | None = None
    strict: bool = True
    reduce_on_plateau: bool = False
    name: str | None = None


@dataclass
class OptimPlan:
    """Optimizers and schedulers of one run, normalised once.

    Attributes:
        optimizers: In the order in which they were returned.
        schedulers: Likewise.
        names: The optimizers' names, if they were returned by name.
        wrapped: What `self.optimizers()` hands out.
        record: How all of them were configured.
    """

    optimizers: list[Optimizer] = field(default_factory=list)
    schedulers: list[SchedulerConfig] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    wrapped: list[LightningOptimizer] = field(default_factory=list)
    record: OptimRecord = field(
        default_factory=lambda: OptimRecord([], [], torch.nn.Module())
    )

    @classmethod
    def from_module(cls, module: Any) -> OptimPlan:
        """Call `module.configure_optimizers()` and normalise what it returns."""
        plan = normalise(module.configure_optimizers())
        if module.automatic_optimization:
            for config in plan.schedulers:
                _check_monitor(config)
        else:
            _warn_of_ignored(plan.schedulers)
        if not plan.optimizers:
            rank_zero_warn(
                "`configure_optimizers` returned None: the fit runs without an optimizer "
                "and changes no parameter"
            )
            plan.optimizers.append(IdleOptimizer())
        if (
            module.automatic_optimization
            and len(plan.optimizers) > 1
            and not plan.names
        ):
            raise MisconfigurationException(
                f"`configure_optimizers` returned {len(plan.optimizers)} optimizers without "
                "names. Either return them by name, `{'a': optimizer_a, 'b': optimizer_b}`, "
                "and the losses from `training_step` by the same names; or set "
                "`self.automatic_optimization = False` in `__init__`, then call "
                "`self.manual_backward(loss)` and `.step()` on each of `self.optimizers()` "
                "in `training_step`."
            )
        schedulers = [config.scheduler for config in plan.schedulers]
        plan.record = OptimRecord(plan.optimizers, schedulers, module)
        return plan


def normalise(returned: Any) -> OptimPlan:
    """Turn any accepted return value of `configure_optimizers` into a plan.

    Raises:
        MisconfigurationException: The value has no accepted form, or a scheduler in it
            cannot work.
    """
    names: list[str] = []
    if _is_named(returned):
        names = [str(name) for name in returned]
        if len(names) == 1 and nearest(names[0], ["optimizer"], cutoff=0.8):
            raise MisconfigurationException(
                f"`configure_optimizers` returned a dictionary with the key {names[0]!r}; "
                'did you mean "optimizer"?'
            )
        returned = [
            value if isinstance(value, Mapping) else {"optimizer": value}
            for value in returned.values()
        ]
    optimizers, schedulers, monitor = _split(returned)
    configs = [_scheduler_config(s, monitor) for s in schedulers]
    plan = OptimPlan(optimizers, configs, names)
    for config in plan.schedulers:
        owner = getattr(config.scheduler, "optimizer", None)
        if owner is not None and not any(owner is o for o in optimizers):
            raise MisconfigurationException(
                f"the scheduler {type(config.scheduler).__name__} drives an optimizer "
                "that `configure_optimizers` did not return. Return that optimizer too, or "
                "build the scheduler from one that is returned."
            )
    return plan


def _is_named(returned: Any) -> bool:
    if not isinstance(returned, Mapping) or "optimizer" in returned or not returned:
        return False
    return all(
        isinstance(value, Optimizer)
        or (isinstance(value, Mapping) and "optimizer" in value)
        for value in returned.values()
    )


def _split(returned: Any) -> tuple[list[Optimizer], list[Any], str | None]:
    if returned is None:
        return [], [], None
    if isinstance(returned, Optimizer):
        return [returned], [], None
    if isinstance(returned, Mapping):
        return _split_dictionary(returned)
    if isinstance(returned, (list, tuple)):
        if len(returned) == 2 and isinstance(returned[0], (list, tuple)):
            first, second = returned
            listed = list(second) if isinstance(second, (list, tuple)) else [second]
            if all(isinstance(entry, Optimizer) for entry in first):
                return list(first), listed, None
        if returned and all(isinstance(entry, Optimizer) for entry in returned):
            return list(returned), [], None
        if returned and all(isinstance(entry, Mapping) for entry in returned):
            return _split_dictionaries(returned)
    raise MisconfigurationException(
        f"`configure_optimizers` returned {_describe(returned)}; {ACCEPTED_FORMS}"
    )


def _split_dictionaries(
    dictionaries: Sequence[Mapping[str, Any]],
) -> tuple[list[Optimizer], list[Any], str | None]:
    optimizers: list[Optimizer] = []
    schedulers: list[Any] = []
    for dictionary in dictionaries:
        more, theirs, monitor = _split_dictionary(dictionary)
        optimizers += more
        schedulers += [_scheduler_config(s, monitor) for s in theirs]
    return optimizers, schedulers, None


def _split_dictionary(
    dictionary: Mapping[str, Any],
) -> tuple[list[Optimizer], list[Any], str | None]:
    _warn_unknown(dictionary, ("optimizer", "lr_scheduler", "monitor"), "optimizer")
    optimizer = dictionary.get("optimizer")
    if not isinstance(optimizer, Optimizer):
        raise MisconfigurationException(
            '`configure_optimizers` returned a dictionary whose "optimizer" is '
            f"{_describe(optimizer)}; {ACCEPTED_FORMS}"
        )
    scheduler = dictionary.get("lr_scheduler")
    return (
        [optimizer],
        [] if scheduler is None else [scheduler],
        dictionary.get("monitor"),
    )


def _scheduler_config(given: Any, monitor: str | None) -> SchedulerConfig:
    if isinstance(given, SchedulerConfig):
        return given
    if isinstance(given, Mapping):
        _warn_unknown(given, _SCHEDULER_KEYS, "lr_scheduler")
        if "scheduler" not in given:
            raise MisconfigurationException(
                f'the lr_scheduler dictionary has the keys {sorted(given)}; "scheduler", '
                "the scheduler itself, is missing"
            )
        known = {key: given[key] for key in _SCHEDULER_KEYS if key in given}
        config = SchedulerConfig(**known)
    else:
        config = SchedulerConfig(given)
    config.monitor = config.monitor or monitor
    _check_scheduler(config)
    return config


def _check_scheduler(config: SchedulerConfig) -> None:
    scheduler = config.scheduler
    kind = type(scheduler).__name__
    if isinstance(scheduler, ReduceLROnPlateau):
        config.reduce_on_plateau = True
    if config.interval not in ("epoch", "step"):
        raise MisconfigurationException(
            f"the lr_scheduler dictionary of {kind} has interval {config.interval!r}; "
            '"epoch" and "step" are accepted'
        )
    if not isinstance(config.frequency, int) or config.frequency < 1:
        raise MisconfigurationException(
            f"the lr_scheduler dictionary of {kind} has frequency {config.frequency!r}; "
            "a whole number of at least 1 is accepted"
        )
    if isinstance(scheduler, (list, tuple)):
        raise MisconfigurationException(
            f'"lr_scheduler" is {_describe(scheduler)}; it is one scheduler, or its '
            "dictionary. For several, return two lists: [optimizer], [schedulers]"
        )
    if not isinstance(scheduler, (LRScheduler, ReduceLROnPlateau)) and not all(
        hasattr(scheduler, name) for name in ("state_dict", "load_state_dict")
    ):
        raise MisconfigurationException(
            f"{_describe(scheduler)} was returned as a scheduler; one has `step`, "
            "`state_dict` and `load_state_dict`"
        )
    if isinstance(scheduler, OneCycleLR) and config.interval == "epoch":
        rank_zero_warn(
            "OneCycleLR is planned in optimizer steps but will step once an epoch; set "
            '"interval": "step" in the lr_scheduler dictionary'
        )


def _check_monitor(config: SchedulerConfig) -> None:
    if config.reduce_on_plateau and config.monitor is None:
        raise MisconfigurationException(
            f"{type(config.scheduler).__name__} needs to know which metric to watch. Return "
            '{"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, '
            '"monitor": "val_loss"}} with a metric that you log.'
        )


def _warn_of_ignored(configs: Sequence[SchedulerConfig]) -> None:
    for config in configs:
        ignored = ["monitor"] if config.monitor is not None else []
        ignored += [] if config.strict else ["strict"]
        if ignored:
            rank_zero_warn(
                f"{' and '.join(map(repr, ignored))} in the lr_scheduler dictionary of "
                f"{type(config.scheduler).__name__} do nothing in manual optimization, "
                "where you call its `step` yourself: `self.lr_schedulers().step(...)`"
            )


def _warn_unknown(given: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    for key in given:
        if key not in known:
            rank_zero_warn(
                f"the {what} dictionary has a key {key!r} that nothing reads."
                f"{did_you_mean(key, known)}"
            )


def _describe(value: Any) -> str:
    if isinstance(value, (list, tuple, set)):
        return f"a {type(value).__name__} of ({', '.join(map(_kind, value))})"
    if isinstance(value, (Optimizer, LRScheduler, Iterator)):
        return f"a {type(value).__name__}"  # whose own text is long or an address
    return f"{value!r} ({type(value).__name__})"


def _kind(value: Any) -> str:
    return (
        _describe(value) if isinstance(value, (list, tuple)) else type(value).__name__
    )


def wants_closure(optimizer: Optimizer) -> bool:
    """Tell whether `optimizer.step` evaluates the loss by itself."""
    if isinstance(optimizer, LBFGS):
        return True
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is closure.empty


class IdleOptimizer(Optimizer):
    """Stands in where `configure_optimizers` returns None, and changes nothing."""

    def __init__(self) -> None:
        super().__init__([torch.zeros(())], {})

    def step(self, closure: Any = None) -> Any:
        """Compute the loss, if there is a closure for it."""
        return closure() if closure is not None else None

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Do nothing."""


class LightningOptimizer:
    """An optimizer whose `step` counts in the run's progress and fires its hooks.

    `self.optimizers()` hands these out. A wrapper is an instance of the wrapped class too
    and shares all of its attributes, so `param_groups`, `state_dict` and `isinstance`
    checks behave as with the optimizer itself.
    """

    __slots__ = ("_no_sync", "_patched", "_step", "_toggle", "optimizer")

    optimizer: Optimizer
    _no_sync: Callable[[], AbstractContextManager[None]]
    _patched: Callable[..., Any] | None
    _step: Callable[..., Any]
    _toggle: Callable[[Optimizer, bool], None]

    @classmethod
    def wrap(
        cls,
        optimizer: Optimizer,
        step: Callable[..., Any],
        toggle: Callable[[Optimizer, bool], None],
        no_sync: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> LightningOptimizer:
        """Wrap `optimizer`.

        Args:
            optimizer: The optimizer.
            step: Called as `step(optimizer, closure)` in place of its own `step`.
            toggle: Called as `toggle(optimizer, on)` around `toggle_model`.
            no_sync: Returns a context that keeps gradients to this process.
        """
        kind = type(optimizer)
        wrapper_class = type(f"Lightning{kind.__name__}", (cls, kind), {})
        wrapper: LightningOptimizer = object.__new__(wrapper_class)
        # One dictionary for both: what either changes, both have.
        object.__setattr__(wrapper, "__dict__", optimizer.__dict__)
        wrapper.optimizer = optimizer
        wrapper._step = step
        wrapper._toggle = toggle
        wrapper._no_sync = no_sync
        wrapper._patched = None
        return wrapper

    # A property, because schedulers write their own `step` into the attributes that the
    # wrapper shares with its optimizer, and only a property of the class outranks those.
    @property
    def step(self) -> Callable[..., Any]:
        """Step the optimizer and count it: `step(closure=None, **kwargs)`."""
        return self._patched or self._counted_step

    @step.setter
    def step(self, patched: Callable[..., Any]) -> None:
        self._patched = patched

    def _counted_step(
        self, closure: Callable[[], Any] | None = None, **kwargs: Any
    ) -> Any:
        return self._step(self.optimizer, closure, **kwargs)

    @contextmanager
    def toggle_model(self, sync_grad: bool = True) -> Iterator[None]:
        """Let only this optimizer's parameters require gradients in the block.

        Args:
            sync_grad: Whether gradients are averaged across processes in the block.
        """
        self._toggle(self.optimizer, True)
        try:
            with nullcontext() if sync_grad else self._no_sync():
                yield
        finally:
            self._toggle(self.optimizer, False)
