"""A run in processes that are started for it: what goes there, and what comes back."""

from __future__ import annotations

import copy
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lightgen_runtime.callbacks.model_checkpoint import ModelCheckpoint
from lightgen_runtime.core.compiled import compiles_with
from lightgen_runtime.core.module import attach
from lightgen_runtime.strategies.multiprocess import run_in_processes
from lightgen_runtime.strategies.parallel import ParallelStrategy
from lightgen_runtime.trainer.signals import settings_of
from lightgen_runtime.trainer.states import TrainerStatus
from lightgen_runtime.utilities.rank_zero import rank_zero_warn
from lightgen_runtime.utilities.seed import collect_rng_states, set_rng_states

if TYPE_CHECKING:
    from lightgen_runtime.loops.run import Run
    from lightgen_runtime.trainer.trainer import Trainer

# What of a trainer a run changes, beside its counters, metrics and callbacks.
_CHANGED = (
    *("default_root_dir", "interrupted_path", "fit_id", "_ckpt_path"),
    *("_should_stop", "_received_sigterm"),
)


@dataclass
class LaunchedRun:
    """One call of `fit` or the like, as each process does it.

    Args:
        trainer: Whose call it is.
        call: What `_execute` of the trainer takes.
        settings: Settings of torch that a new process has not.
    """

    trainer: Trainer
    call: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)

    def __call__(self, keep: Callable[[Any], None]) -> None:
        """Do it; `keep` what came of it, also after an error."""
        trainer, strategy = self.trainer, self.trainer.strategy
        assert isinstance(strategy, ParallelStrategy)
        _apply(self.settings)
        nodes = trainer.num_nodes
        strategy.connect(strategy.parallel_devices or [], nodes)
        result = None
        try:
            result = trainer._execute(**self.call)
            if self.call["fn"] == "predict" and result is not None:
                result = trainer.predict_loop.of_all_processes(strategy)
        finally:
            if strategy.local_rank == 0:
                keep(_outcome(trainer, self.call["model"], result))


def is_launched(trainer: Trainer) -> bool:
    """Tell whether runs of this trainer happen in processes that are started for them."""
    strategy = trainer.strategy
    environment = strategy.cluster_environment
    return strategy.start_method != "popen" and (
        environment is None or not environment.creates_processes_externally
    )


def has_optimizers(trainer: Trainer) -> bool:
    """Tell whether a checkpoint can hold optimizers; warn if they are gone."""
    if not is_launched(trainer):
        return True
    rank_zero_warn(
        "the optimizers have ended with the processes of the run: this checkpoint holds "
        "the weights, for `load_from_checkpoint`. Those that a `ModelCheckpoint` has "
        "written hold everything."
    )
    return False


def launch(trainer: Trainer, run: Run, call: dict[str, Any]) -> Any:
    """Run in processes of their own; return what the call returns.

    The trainer and the module are afterwards as if it had run here, but for optimizers,
    which have ended with the processes.

    Args:
        trainer: Whose call it is.
        run: The call, made ready here.
        call: The rest of what `_execute` of the trainer takes.

    Raises:
        BaseException: What the run raised.
    """
    strategy = trainer.strategy
    assert isinstance(strategy, ParallelStrategy)
    sent = copy.copy(trainer)
    sent._run = None
    spawned = strategy.start_method != "fork"
    if spawned and compiles_with(run.module) is not None:
        rank_zero_warn(
            f"{type(run.module).__name__} runs as it is written: what `torch.compile` was "
            "called with cannot be sent to processes that are spawned. Use "
            "`Trainer(compile=...)`, or strategy='ddp'."
        )
    assert trainer.state.fn is not None
    whole = {
        "fn": trainer.state.fn.value,
        "model": run.module,
        "datamodule": run.datamodule,
        "ckpt_path": None,
        **call,
    }
    job = LaunchedRun(sent, whole, _settings() if spawned else {})
    signals = [*settings_of(trainer).numbers, signal.SIGINT]
    outcome: dict[str, Any] = {}
    try:
        run_in_processes(
            job,
            strategy.ranks,
            strategy.make_store(),
            strategy.start_method,
            signals,
            outcome.update,
        )
    except BaseException:
        trainer.state.status = TrainerStatus.INTERRUPTED
        raise
    finally:
        trainer.state.stage = None
        attach(run.module, None, run)
        if outcome:
            _take(trainer, run, outcome)
    trainer.state.status = TrainerStatus.FINISHED
    return outcome["result"]


def _settings() -> dict[str, Any]:
    return {
        "rng": collect_rng_states(include_cuda=False),
        "dtype": torch.get_default_dtype(),
        "precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "benchmark": torch.backends.cudnn.benchmark,
    }


def _apply(settings: dict[str, Any]) -> None:
    if not settings:
        return
    set_rng_states(settings["rng"])
    torch.set_default_dtype(settings["dtype"])
    torch.set_float32_matmul_precision(settings["precision"])
    torch.use_deterministic_algorithms(
        settings["deterministic"], warn_only=settings["warn_only"]
    )
    torch.backends.cudnn.benchmark = settings["benchmark"]


def _outcome(trainer: Trainer, module: nn.Module, result: Any) -> dict[str, Any]:
    run = trainer._run
    assert run is not None
    weights = {name: tensor.detach().cpu() for name, tensor in _tensors(module).items()}
    callbacks = {each.state_key: each.state_dict() for each in trainer.callbacks}
    return {
        "result": result,
        "weights": weights,
        "metrics": run.report.published(),
        "progress": trainer.progress.state_dict(),
        "callbacks": {key: state for key, state in callbacks.items() if state},
        "versions": [logger.version for logger in trainer.loggers],
        "trainer": {name: getattr(trainer, name) for name in _CHANGED},
    }


def _take(trainer: Trainer, run: Run, outcome: dict[str, Any]) -> None:
    vars(trainer).update(outcome["trainer"])
    trainer.progress.load_state_dict(outcome["progress"])
    run.report.adopt(outcome["metrics"])
    for logger, version in zip(trainer.loggers, outcome["versions"], strict=True):
        logger.adopt_version(version)
    for callback in trainer.callbacks:
        state = outcome["callbacks"].get(callback.state_key)
        if state is not None:
            if isinstance(callback, ModelCheckpoint):
                callback.dirpath = state["dirpath"]  # which the run has chosen
            callback.load_state_dict(state)
    _load(run, outcome["weights"])


def _load(run: Run, weights: dict[str, torch.Tensor]) -> None:
    """Give the module here the weights of the one that has run."""
    module, precision = run.module, run.parts.precision
    if weights.keys() - _tensors(module).keys():
        with precision.module_init_context():
            module.configure_model()
    precision.convert_module(module)
    tensors = _tensors(module)
    missing = sorted(weights.keys() - tensors.keys())
    if missing:
        rank_zero_warn(
            f"the module here has no {', '.join(missing[:3])}"
            f"{' and others' if len(missing) > 3 else ''}, which it got in the processes of "
            "the run, so those weights are in its checkpoints only. Make layers in "
            "`__init__` or `configure_model`."
        )
    with torch.no_grad():
        for name, tensor in weights.items():
            if name in tensors:
                tensors[name].copy_(tensor)


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}
