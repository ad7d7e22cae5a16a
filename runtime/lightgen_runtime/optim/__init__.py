"""What generated `configure_optimizers` are made of, beside torch itself."""

from lightgen_runtime.optim.combined import CombinedOptimizer
from lightgen_runtime.optim.groups import parameter_groups
from lightgen_runtime.optim.selection import (
    freeze,
    select_parameters,
    split_parameters,
)

__all__ = [
    "CombinedOptimizer",
    "freeze",
    "parameter_groups",
    "select_parameters",
    "split_parameters",
]
