"""Where the processes and devices of a run are."""

from lightgen_runtime.strategies.base import Strategy
from lightgen_runtime.strategies.ddp import DDPStrategy
from lightgen_runtime.strategies.single import SingleDeviceStrategy

__all__ = ["DDPStrategy", "SingleDeviceStrategy", "Strategy"]
