"""Where the processes and devices of a run are."""

from lightgen_runtime.strategies.base import Strategy
from lightgen_runtime.strategies.ddp import DDPStrategy
from lightgen_runtime.strategies.fsdp import FSDPStrategy
from lightgen_runtime.strategies.model_parallel import ModelParallelStrategy
from lightgen_runtime.strategies.parallel import ParallelStrategy
from lightgen_runtime.strategies.registry import StrategyRegistry
from lightgen_runtime.strategies.single import SingleDeviceStrategy

__all__ = [
    "DDPStrategy",
    "FSDPStrategy",
    "ModelParallelStrategy",
    "ParallelStrategy",
    "SingleDeviceStrategy",
    "Strategy",
    "StrategyRegistry",
]
