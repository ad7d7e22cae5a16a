"""From the `strategy` flag to a strategy."""

from __future__ import annotations

import torch
import torch.distributed as dist

from lightgen_runtime.strategies.base import Strategy
from lightgen_runtime.strategies.environments.cluster import ClusterEnvironment
from lightgen_runtime.strategies.environments.detection import is_own_process
from lightgen_runtime.strategies.multiprocess import is_interactive
from lightgen_runtime.strategies.parallel import ParallelStrategy
from lightgen_runtime.strategies.ranks import ranks_in
from lightgen_runtime.strategies.registry import StrategyRegistry
from lightgen_runtime.strategies.single import SingleDeviceStrategy
from lightgen_runtime.utilities.exceptions import MisconfigurationException


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
        if strategy not in StrategyRegistry:
            known = StrategyRegistry.known(strategy, "auto")
            raise MisconfigurationException(
                f"`Trainer(strategy={strategy!r})` is no name in `StrategyRegistry` and no "
                f"`Strategy`; {known}"
            )
        strategy = _made(strategy)
    strategy.cluster_environment = environment
    if isinstance(strategy, ParallelStrategy):
        strategy.connect(devices, num_nodes)
    return strategy


def _may_be_alone() -> bool:
    """Tell whether a trainer of one device is meant so, though others run its program.

    As for a test behind a fit of them all. Else it may be forgotten that there are more.
    """
    return is_own_process() or dist.is_initialized()


def _made(name: str) -> Strategy:
    made = StrategyRegistry.get(name)
    if not isinstance(made, Strategy):
        raise MisconfigurationException(
            f"`Trainer(strategy={name!r})`: what is registered under that name made a "
            f"{type(made).__name__}, which is no `Strategy`"
        )
    return made
