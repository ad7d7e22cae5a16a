"""From constructor flags to `TrainerParts`: checked once, frozen, free of the model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from lightgen_runtime.accelerators import Accelerator, choose_devices
from lightgen_runtime.accelerators.accelerator import accelerator_of
from lightgen_runtime.callbacks.callback import Callback
from lightgen_runtime.callbacks.checkpoint import Checkpoint
from lightgen_runtime.callbacks.model_checkpoint import ModelCheckpoint
from lightgen_runtime.callbacks.model_summary import ModelSummary
from lightgen_runtime.callbacks.progress import ProgressBar, default_progress_bar
from lightgen_runtime.callbacks.pruning import ModelPruning
from lightgen_runtime.callbacks.stochastic_weight_avg import StochasticWeightAveraging
from lightgen_runtime.callbacks.timer import Timer, duration_of
from lightgen_runtime.callbacks.weight_averaging import WeightAveraging
from lightgen_runtime.loggers import CSVLogger, Logger
from lightgen_runtime.precision import Precision
from lightgen_runtime.precision.base import CLIP_ALGORITHMS
from lightgen_runtime.precision.choose import choose_precision
from lightgen_runtime.precision.matmul import check_matmul_precision
from lightgen_runtime.profilers.named import choose_profiler
from lightgen_runtime.profilers.profiler import Profiler
from lightgen_runtime.strategies import Strategy
from lightgen_runtime.strategies.environments import ClusterEnvironment
from lightgen_runtime.strategies.environments.detection import (
    choose_environment,
    processes_here,
)
from lightgen_runtime.strategies.named import choose_strategy
from lightgen_runtime.trainer.plugged import plugged
from lightgen_runtime.trainer.presets import with_presets
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.nearest import did_you_mean

# Parts for which None has a meaning of its own.
_MAY_BE_NONE = (
    "min_epochs",
    "min_steps",
    "check_val_every_n_epoch",
    "gradient_clip_val",
    "gradient_clip_algorithm",
)
_NEED_WHOLE_WEIGHTS = (WeightAveraging, StochasticWeightAveraging, ModelPruning)
# Source: Lightning's, for a trainer without any limit.
DEFAULT_MAX_EPOCHS = 1000


@dataclass(frozen=True)
class TrainerParts:
    """What a trainer's flags came to."""

    accelerator: Accelerator
    strategy: Strategy
    precision: Precision
    loggers: list[Logger]
    max_epochs: int
    min_epochs: int | None
    max_steps: int
    min_steps: int | None
    limit_train_batches: int | float
    limit_val_batches: int | float
    limit_test_batches: int | float
    limit_predict_batches: int | float
    overfit_batches: int | float
    val_check_interval: int | float | timedelta
    check_val_every_n_epoch: int | None
    num_sanity_val_steps: int
    log_every_n_steps: int
    accumulate_grad_batches: int
    gradient_clip_val: float | None
    gradient_clip_algorithm: str | None
    inference_mode: bool
    fast_dev_run: int
    profiler: Profiler
    reload_dataloaders_every_n_epochs: int
    enable_autolog_hparams: bool
    barebones: bool
    use_distributed_sampler: bool


def build_parts(flags: dict[str, Any]) -> TrainerParts:
    """Check the flags of `Trainer` against each other and resolve them.

    Args:
        flags: The constructor's arguments by name.

    Raises:
        MisconfigurationException: A flag has no accepted value, or two contradict.
    """
    flags = with_presets(flags)
    flags = {name: _whole_if_it_is(name, value) for name, value in flags.items()}
    _check_flags(flags)
    overfit = flags["overfit_batches"]
    val_limit = flags["limit_val_batches"]
    max_epochs, max_steps = _limits(flags)
    plugins = plugged(flags)
    strategy = _strategy(flags, plugins.environment)
    if plugins.checkpoint_io is not None:
        strategy.checkpoint_io = plugins.checkpoint_io
    precision = plugins.precision or choose_precision(
        flags["precision"], strategy.root_device.type
    )
    strategy.compute_dtype = precision.compute_dtype
    precision.clip_norm = strategy.clip_norm
    precision.clip_value = strategy.clip_value
    given = flags["accelerator"]
    by_user = isinstance(given, Accelerator)
    return TrainerParts(
        accelerator=given if by_user else accelerator_of(strategy.root_device),
        strategy=strategy,
        precision=precision,
        loggers=_loggers(flags["logger"], flags["default_root_dir"]),
        max_epochs=max_epochs,
        min_epochs=flags["min_epochs"],
        max_steps=max_steps,
        min_steps=flags["min_steps"],
        limit_train_batches=overfit or _default(flags["limit_train_batches"], 1.0),
        limit_val_batches=overfit or _default(val_limit, 1.0),
        limit_test_batches=_default(flags["limit_test_batches"], 1.0),
        limit_predict_batches=_default(flags["limit_predict_batches"], 1.0),
        overfit_batches=overfit,
        val_check_interval=_interval(_default(flags["val_check_interval"], 1.0)),
        check_val_every_n_epoch=flags["check_val_every_n_epoch"],
        num_sanity_val_steps=_default(flags["num_sanity_val_steps"], 2),
        log_every_n_steps=_default(flags["log_every_n_steps"], 50),
        accumulate_grad_batches=flags["accumulate_grad_batches"],
        gradient_clip_val=flags["gradient_clip_val"],
        gradient_clip_algorithm=flags["gradient_clip_algorithm"],
        # Weights that are put together inside it would stay inference tensors.
        inference_mode=flags["inference_mode"] and not strategy.spreads_model,
        fast_dev_run=int(flags["fast_dev_run"]),
        profiler=choose_profiler(flags["profiler"]),
        reload_dataloaders_every_n_epochs=flags["reload_dataloaders_every_n_epochs"],
        enable_autolog_hparams=flags["enable_autolog_hparams"],
        barebones=flags["barebones"],
        use_distributed_sampler=bool(flags["use_distributed_sampler"]),
    )


def changed_parts(parts: TrainerParts, name: str, value: Any) -> TrainerParts:
    """Return the parts with one flag changed, if it is accepted.

    Args:
        parts: As they are.
        name: The flag's name.
        value: What is assigned.

    Raises:
        MisconfigurationException: The flag does not accept the value.
    """
    if value is None and name not in _MAY_BE_NONE:
        raise MisconfigurationException(
            f"`trainer.{name} = None`: assign a value; None means the default in "
            "`Trainer(...)` only"
        )
    as_flags = dict(vars(parts))
    if name != "val_check_interval" and parts.val_check_interval == 1.0:
        as_flags["val_check_interval"] = None  # the default, which fits any other flag
    neutral = {"deterministic": None, "num_nodes": 1, "matmul_precision": None}
    changed = {**neutral, **as_flags, name: _whole_if_it_is(name, value)}
    _check_flags(changed)
    if name == "val_check_interval":
        changed[name] = _interval(value)
    return replace(parts, **{name: changed[name]})


def build_callbacks(flags: dict[str, Any], parts: TrainerParts) -> list[Callback]:
    """Return the user's callbacks and the default ones, in calling order.

    Checkpoint callbacks run last, so that they save what the others did.
    """
    flags = with_presets(flags)
    callbacks = as_callbacks(flags["callbacks"] or [], "Trainer(callbacks=...)")
    callbacks += _default_callbacks(flags, parts, callbacks)
    _check_whole_weights(parts.strategy, callbacks)
    keys: dict[str, Callback] = {}
    for callback in callbacks:
        other = keys.setdefault(callback.state_key, callback)
        if other is not callback and callback.state_dict():
            raise MisconfigurationException(
                f"two {type(callback).__name__} callbacks have the same state key "
                f"{callback.state_key!r}, so a checkpoint could hold only one's state. "
                "Give them different arguments, or override `state_key`."
            )
    return ordered(callbacks)


def _check_whole_weights(strategy: Strategy, callbacks: list[Callback]) -> None:
    for callback in callbacks if strategy.spreads_model else []:
        if isinstance(callback, _NEED_WHOLE_WEIGHTS):
            raise MisconfigurationException(
                f"{type(callback).__name__} with {type(strategy).__name__}: it works on "
                "whole weights, which lie in parts in several processes. Leave it out, or "
                "use strategy='ddp'."
            )


def as_callbacks(given: Any, where: str) -> list[Callback]:
    """Return one callback or a sequence of them as a list, checked."""
    callbacks = list(given) if isinstance(given, (list, tuple)) else [given]
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise MisconfigurationException(
                f"`{where}` got {callback!r} ({type(callback).__name__}); each must be an "
                "instance of a `Callback` subclass"
            )
    return callbacks


def ordered(callbacks: Iterable[Callback]) -> list[Callback]:
    """Put checkpoint callbacks last, the rest staying in their order."""
    return sorted(callbacks, key=lambda callback: isinstance(callback, Checkpoint))


def _default_callbacks(
    flags: dict[str, Any], parts: TrainerParts, given: list[Callback]
) -> list[Callback]:
    added: list[Callback] = []

    def has(kind: type) -> bool:
        return any(isinstance(callback, kind) for callback in given)

    if has(Checkpoint) and flags["enable_checkpointing"] is False:
        raise MisconfigurationException(
            "`Trainer(enable_checkpointing=False)` with a checkpoint callback: remove one "
            "of the two"
        )
    if has(ProgressBar) and flags["enable_progress_bar"] is False:
        raise MisconfigurationException(
            "`Trainer(enable_progress_bar=False)` with a progress bar callback: remove "
            "one of the two"
        )
    if not has(ProgressBar) and _default(flags["enable_progress_bar"], True):
        added.append(default_progress_bar())
    if flags["max_time"] is not None and not has(Timer):
        added.append(Timer(flags["max_time"]))
    if not has(ModelSummary) and _default(flags["enable_model_summary"], True):
        added.append(ModelSummary())
    wants_checkpoint = _default(flags["enable_checkpointing"], True)
    if not has(Checkpoint) and wants_checkpoint:
        added.append(ModelCheckpoint())
    return added


def _check_flags(flags: dict[str, Any]) -> None:
    for name, least in (
        ("max_epochs", -1),
        ("min_epochs", 0),
        ("max_steps", -1),
        ("min_steps", 0),
        ("num_nodes", 1),
        ("check_val_every_n_epoch", 1),
        ("num_sanity_val_steps", -1),
        ("log_every_n_steps", 0),
        ("accumulate_grad_batches", 1),
        ("reload_dataloaders_every_n_epochs", 0),
    ):
        value = flags[name]
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value is None and name not in (
            "max_steps",
            "accumulate_grad_batches",
            "num_nodes",
        ):
            continue
        if not whole or value < least:
            raise MisconfigurationException(
                f"`Trainer({name}={value!r})`: a whole number of at least {least} is "
                "accepted"
            )
    if flags["deterministic"] not in (None, True, False, "warn"):
        raise MisconfigurationException(
            f"`Trainer(deterministic={flags['deterministic']!r})`: True, False, \"warn\" or "
            "None is accepted"
        )
    check_matmul_precision(flags["matmul_precision"])
    for stage in ("train", "val", "test", "predict"):
        _check_share(f"limit_{stage}_batches", flags[f"limit_{stage}_batches"])
    _check_share("overfit_batches", flags["overfit_batches"])
    _check_interval(flags["val_check_interval"], flags["check_val_every_n_epoch"])
    clip_val, algorithm = flags["gradient_clip_val"], flags["gradient_clip_algorithm"]
    if clip_val is not None and not (
        isinstance(clip_val, (int, float)) and clip_val >= 0
    ):
        raise MisconfigurationException(
            f"`Trainer(gradient_clip_val={clip_val!r})`: a number of at least 0 is accepted"
        )
    if algorithm is not None and algorithm not in CLIP_ALGORITHMS:
        raise MisconfigurationException(
            f"`Trainer(gradient_clip_algorithm={algorithm!r})`: accepted are "
            f"{', '.join(map(repr, CLIP_ALGORITHMS))}."
            f"{did_you_mean(algorithm, CLIP_ALGORITHMS)}"
        )


def _check_interval(interval: Any, every_n_epochs: int | None) -> None:
    if isinstance(interval, (str, Mapping, timedelta)):
        _interval(interval)
        return
    _check_share("val_check_interval", interval)
    if interval == 0:
        raise MisconfigurationException(
            "`Trainer(val_check_interval=0)`: use limit_val_batches=0 for no validation"
        )
    if isinstance(interval, float) and every_n_epochs is None:
        raise MisconfigurationException(
            f"`Trainer(val_check_interval={interval}, check_val_every_n_epoch=None)`: a "
            "share of an epoch cannot be counted across epochs; use a number of batches or "
            "a time"
        )


def _interval(value: Any) -> int | float | timedelta:
    """Return the interval between validations, a time as a `timedelta`."""
    if not isinstance(value, (str, Mapping, timedelta)):
        interval: int | float = value
        return interval
    return duration_of(value, "Trainer(val_check_interval={!r})")


def _whole_if_it_is(name: str, value: Any) -> Any:
    """Return a number of batches such as 2.0 as the whole number that it is."""
    if not name.startswith(("limit_", "overfit_", "val_check_")):
        return value
    if isinstance(value, float) and value > 1.0 and value.is_integer():
        return int(value)
    return value


def _check_share(name: str, value: Any) -> None:
    whole = isinstance(value, int) and value >= 0
    share = isinstance(value, float) and 0.0 <= value <= 1.0
    if value is not None and not whole and not share:
        raise MisconfigurationException(
            f"`Trainer({name}={value!r})`: a number of batches (0, 1, 2, ...) or a share "
            "from 0.0 to 1.0 is accepted"
        )


def _limits(flags: dict[str, Any]) -> tuple[int, int]:
    max_epochs, max_steps = flags["max_epochs"], flags["max_steps"]
    if max_epochs is not None:
        return max_epochs, max_steps
    return (DEFAULT_MAX_EPOCHS if max_steps == -1 else -1), max_steps


def _strategy(flags: dict[str, Any], given: ClusterEnvironment | None) -> Strategy:
    own = getattr(flags["strategy"], "cluster_environment", None)
    environment = choose_environment(given or own)
    processes = processes_here(environment, flags["num_nodes"])
    devices = choose_devices(flags["accelerator"], flags["devices"], processes)
    strategy = choose_strategy(
        flags["strategy"], devices, flags["num_nodes"], environment
    )
    strategy.sync_batchnorm = bool(flags["sync_batchnorm"])
    several = strategy.world_size > 1
    if strategy.sync_batchnorm and several and strategy.root_device.type == "cpu":
        raise MisconfigurationException(
            "`Trainer(sync_batchnorm=True)` on CPUs: torch's `SyncBatchNorm` trains on GPUs "
            "only. Leave it out here."
        )
    return strategy


def _loggers(logger: Any, root: str | os.PathLike[str] | None) -> list[Logger]:
    if logger is False:
        return []
    if logger is True or logger is None:
        return [CSVLogger(Path(root or Path.cwd()).expanduser())]
    loggers = list(logger) if isinstance(logger, (list, tuple)) else [logger]
    for entry in loggers:
        if not isinstance(entry, Logger):
            raise MisconfigurationException(
                f"`Trainer(logger=...)` got {entry!r} ({type(entry).__name__}); True, False, "
                "a `Logger` or a list of them is accepted"
            )
    return loggers


def set_torch_flags(deterministic: bool | str | None, benchmark: bool | None) -> None:
    """Switch torch's own determinism and autotuning, where asked to."""
    if deterministic is not None:
        torch.use_deterministic_algorithms(
            bool(deterministic), warn_only=deterministic == "warn"
        )
        if deterministic:
            # Source: required by cuBLAS for deterministic results since CUDA 10.2.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if benchmark is not None:
        torch.backends.cudnn.benchmark = benchmark
    elif deterministic:
        torch.backends.cudnn.benchmark = False


def _default(value: Any, default: Any) -> Any:
    return default if value is None else value
