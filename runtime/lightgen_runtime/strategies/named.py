"""From the `strategy` flag to a strategy."""

from __future__ import annotations

from collections.abc import Callable

import torch

from lightgen_runtime.strategies.base import Strategy
from lightgen_runtime.strategies.ddp import DDPStrategy
from lightgen_runtime.strategies.single import SingleDeviceStrategy
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.nearest import did_you_mean

STRATEGIES: dict[str, Callable[[], DDPStrategy] | None] = {
    "auto": None,
    "single_device": None,
    "ddp": DDPStrategy,
    "ddp_find_unused_parameters_false": lambda: DDPStrategy(
        find_unused_parameters=False
    ),
    "ddp_find_unused_parameters_true": lambda: DDPStrategy(find_unused_parameters=True),
}


def choose_strategy(
    strategy: str | Strategy, devices: list[torch.device], num_nodes: int
) -> Strategy:
    """Return the strategy that the flag asks for, on these devices.

    Args:
        strategy: One of `STRATEGIES`, or a strategy; "auto" is "single_device" for one
            device and "ddp" for several.
        devices: Devices of this node, one a process.
        num_nodes: Nodes with as many processes each.

    Raises:
        MisconfigurationException: There is no such strategy, or not for so many devices.
    """
    if isinstance(strategy, DDPStrategy):
        strategy.connect(devices, num_nodes)
    if isinstance(strategy, Strategy):
        return strategy
    if strategy not in STRATEGIES:
        raise MisconfigurationException(
            f"`Trainer(strategy={strategy!r})`: there are "
            f"{', '.join(map(repr, STRATEGIES))}, and any `Strategy`."
            f"{did_you_mean(strategy, STRATEGIES)}"
        )
    several = len(devices) * num_nodes > 1
    if strategy == "single_device" and several:
        raise MisconfigurationException(
            f"`Trainer(strategy='single_device')` with {len(devices)} device(s) on "
            f"{num_nodes} node(s): use strategy='ddp' for several"
        )
    if strategy == "auto":
        strategy = "ddp" if several else "single_device"
    make = STRATEGIES[strategy]
    if make is None:
        return SingleDeviceStrategy(devices[0])
    made = make()
    made.connect(devices, num_nodes)
    return made
