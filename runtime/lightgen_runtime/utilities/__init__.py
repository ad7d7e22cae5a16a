"""Support code that knows nothing of training: errors, ranks, seeds, moving data."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightgen_runtime.utilities.combined_loader import CombinedLoader
    from lightgen_runtime.utilities.grads import grad_norm
    from lightgen_runtime.utilities.move_data import move_data_to_device
    from lightgen_runtime.utilities.rank_zero import (
        rank_zero_deprecation,
        rank_zero_info,
        rank_zero_only,
        rank_zero_warn,
    )

__all__ = [
    "CombinedLoader",
    "grad_norm",
    "move_data_to_device",
    "rank_zero_deprecation",
    "rank_zero_info",
    "rank_zero_only",
    "rank_zero_warn",
]

_HOMES = {
    "CombinedLoader": "combined_loader",
    "grad_norm": "grads",
    "move_data_to_device": "move_data",
    **dict.fromkeys(__all__[3:], "rank_zero"),
}


def __getattr__(name: str) -> Any:
    """Import the module of a public name on its first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
