"""From the `strategy` flag to a strategy."""

from __future__ import annotations

import torch
import torch.distributed as dist

from lightgen_runtime.core.hooks import is_overridden
from lightgen_runtime.strategies.base import Strategy
from lightgen_runtime.strategies.environments.cluster import ClusterEnvironment
from lightgen_runtime.strategies.environments.detection import is_own_process
from lightgen_runtime.strategies.multiprocess import is_interactive
from lightgen_runtime.strategies.parallel import ParallelStrategy
from lightgen_runtime.strategies.ranks import ranks_in
from lightgen_runtime.strategies.registry import StrategyRegistry
from lightgen_runtime.strategies.single import SingleDeviceStrategy
from lightgen_runtime.utilities.exceptions import MisconfigurationException

# Methods of Lightning's strategies that nothing here calls.
UNCALLED = (
    *("setup", "setup_distributed", "configure_ddp", "model_to_device"),
    *("determine_ddp_device_ids", "set_world_ranks", "batch_to_device", "backward"),
    *("pre_backward", "post_backward", "optimizer_step", "setup_optimizers"),
    *("setup_precision_plugin", "tensor_init_context", "model_sharded_context"),
    *("training_step", "validation_step", "test_step", "predict_step"),
    *("post_training_step", "on_train_batch_start", "process_dataloader"),
    *("on_train_start", "on_train_end", "on_validation_start", "on_validation_end"),
    *("on_test_start", "on_test_end", "on_predict_start", "on_predict_end"),
    *("lightning_module_state_dict", "load_model_state_dict"),
    *("optimizer_state", "load_optimizer_state_dict"),
)
_ABSENT = {
    "deepspeed": "DeepSpeed is not used: 'fsdp' shards weights, gradients and states of "
    "optimizers, as its stage 3 does, and 'fsdp_cpu_offload' keeps them in host memory",
    "xla": "TPUs are not supported",
}


def choose_strategy(
    strategy: str | Strategy,
    devices: list[torch.device],
    num_nodes: int,
    environment: ClusterEnvironment,
) -> Strategy:
    """Return the strategy that the flag asks for, on these devices.

    Args:
        strategy: A name in `StrategyRegistry`, or a strategy; "auto" is "single_device"
            for one device, and for several "ddp", or "ddp_notebook" in a notebook.
        devices: Devices of this node, one a process.
        num_nodes: Nodes with as many processes each.
        environment: Who has started this process.

    Raises:
        MisconfigurationException: There is no such strategy, or not for so many devices.
    """
    several = len(devices) * num_nodes > 1
    if strategy == "single_device" and several:
        raise MisconfigurationException(
            f"`Trainer(strategy='single_device')` with {len(devices)} device(s) on "
            f"{num_nodes} node(s): use strategy='ddp' for several"
        )
    if strategy == "auto":
        if several or not _may_be_alone():
            ranks_in(environment, len(devices), num_nodes)  # so many there must be
        strategy = "ddp" if several else "single_device"
        if several and not environment.creates_processes_externally:
            strategy = "ddp_notebook" if is_interactive() else "ddp"
    if strategy == "single_device":
        strategy = SingleDeviceStrategy(devices[0])
    if not isinstance(strategy, Strategy):
        strategy = _made(_known(strategy))
    _check_methods(strategy)
    strategy.cluster_environment = environment
    if isinstance(strategy, ParallelStrategy):
        strategy.connect(devices, num_nodes)
    return strategy


def _may_be_alone() -> bool:
    """Tell whether a trainer of one device is meant so, though others run its program.

    As for a test behind a fit of them all. Else it may be forgotten that there are more.
    """
    return is_own_process() or dist.is_initialized()


def _known(name: object) -> str:
    """Return the name that was meant, in capitals or not."""
    for accepted in (name, str(name).lower()):
        if isinstance(accepted, str) and accepted in StrategyRegistry:
            return accepted
    family = str(name).partition("_")[0].lower()
    known = _ABSENT.get(family) or StrategyRegistry.known(name, "auto")
    raise MisconfigurationException(
        f"`Trainer(strategy={name!r})` is no name in `StrategyRegistry` and no "
        f"`Strategy`; {known}"
    )


def _check_methods(strategy: Strategy) -> None:
    for name in UNCALLED:
        if is_overridden(name, strategy, Strategy):
            raise MisconfigurationException(
                f"a {type(strategy).__name__} has a method `{name}`, which Lightning calls "
                "and this runtime does not. What it calls are the methods of "
                "`lightgen_runtime.strategies.Strategy`; a module's and a callback's hooks "
                "are called at the same moments."
            )


def _made(name: str) -> Strategy:
    made = StrategyRegistry.get(name)
    if not isinstance(made, Strategy):
        raise MisconfigurationException(
            f"`Trainer(strategy={name!r})`: what is registered under that name made a "
            f"{type(made).__name__}, which is no `Strategy`"
        )
    return made
