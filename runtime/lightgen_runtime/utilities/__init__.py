"""Support code that knows nothing of training: errors, ranks, seeds, moving data."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightgen_runtime.utilities.combined_loader import CombinedLoader
    from lightgen_runtime.utilities.enums import (
        GradClipAlgorithmType,
        LightningEnum,
    )
    from lightgen_runtime.utilities.grads import grad_norm
    from lightgen_runtime.utilities.move_data import move_data_to_device
    from lightgen_runtime.utilities.parameter_tying import (
        find_shared_parameters,
        set_shared_parameters,
    )
    from lightgen_runtime.utilities.rank_zero import (
        rank_zero_deprecation,
        rank_zero_info,
        rank_zero_only,
        rank_zero_warn,
    )
    from lightgen_runtime.utilities.throughput import measure_flops
    from lightgen_runtime.utilities.warnings import disable_possible_user_warnings
    from lightgen_runtime.utilities.workers import suggested_max_num_workers

__all__ = [
    "CombinedLoader",
    "GradClipAlgorithmType",
    "LightningEnum",
    "disable_possible_user_warnings",
    "find_shared_parameters",
    "grad_norm",
    "measure_flops",
    "move_data_to_device",
    "rank_zero_deprecation",
    "rank_zero_info",
    "rank_zero_only",
    "rank_zero_warn",
    "set_shared_parameters",
    "suggested_max_num_workers",
]

_HOMES = {
    "CombinedLoader": "combined_loader",
    "GradClipAlgorithmType": "enums",
    "LightningEnum": "enums",
    "disable_possible_user_warnings": "warnings",
    "find_shared_parameters": "parameter_tying",
    "grad_norm": "grads",
    "measure_flops": "throughput",
    "move_data_to_device": "move_data",
    "rank_zero_deprecation": "rank_zero",
    "rank_zero_info": "rank_zero",
    "rank_zero_only": "rank_zero",
    "rank_zero_warn": "rank_zero",
    "set_shared_parameters": "parameter_tying",
    "suggested_max_num_workers": "workers",
}


def __getattr__(name: str) -> Any:
    """Import the module of a public name on its first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
