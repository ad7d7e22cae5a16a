"""Showing what a model consists of before it is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightgen_runtime.callbacks.callback import Callback
from lightgen_runtime.utilities.model_summary import summarize
from lightgen_runtime.utilities.rank_zero import print_to_stderr

if TYPE_CHECKING:
    from lightgen_runtime.core.module import LightningModule
    from lightgen_runtime.trainer.trainer import Trainer


class ModelSummary(Callback):
    """Print the model's layers and parameters to stderr when a fit starts.

    Args:
        max_depth: Levels of submodules to list: -1 for all, 0 prints nothing.
    """

    def __init__(self, max_depth: int = 1) -> None:
        self._max_depth = max_depth

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the table, on rank zero."""
        if trainer.is_global_zero and self._max_depth:
            print_to_stderr(str(summarize(pl_module, self._max_depth)))
