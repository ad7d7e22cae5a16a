"""What can listen to a run. Nothing is imported before it is used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightgen_runtime.callbacks.callback import Callback
    from lightgen_runtime.callbacks.checkpoint import Checkpoint
    from lightgen_runtime.callbacks.early_stopping import EarlyStopping
    from lightgen_runtime.callbacks.finite_loss import FiniteLoss
    from lightgen_runtime.callbacks.model_checkpoint import ModelCheckpoint
    from lightgen_runtime.callbacks.model_summary import ModelSummary
    from lightgen_runtime.callbacks.progress import (
        PlainProgressBar,
        ProgressBar,
        RichProgressBar,
    )

__all__ = [
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "FiniteLoss",
    "ModelCheckpoint",
    "ModelSummary",
    "PlainProgressBar",
    "ProgressBar",
    "RichProgressBar",
]

_MODULES = {
    "Callback": "callback",
    "Checkpoint": "checkpoint",
    "EarlyStopping": "early_stopping",
    "FiniteLoss": "finite_loss",
    "ModelCheckpoint": "model_checkpoint",
    "ModelSummary": "model_summary",
    "PlainProgressBar": "progress",
    "ProgressBar": "progress",
    "RichProgressBar": "progress",
}


def __getattr__(name: str) -> Any:
    """Import the module of a public name on its first use (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
