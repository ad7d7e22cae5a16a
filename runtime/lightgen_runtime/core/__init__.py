"""What a user subclasses, and the records a run keeps about it. Knows no loop."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightgen_runtime.core.datamodule import LightningDataModule
    from lightgen_runtime.core.module import LightningModule

__all__ = ["LightningDataModule", "LightningModule"]

_MODULES = {"LightningDataModule": "datamodule", "LightningModule": "module"}


def __getattr__(name: str) -> Any:
    """Import the module of a public name on its first use (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
