"""The model summary as a table drawn by Rich."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightgen_runtime.callbacks.model_summary import ModelSummary
from lightgen_runtime.utilities.imports import import_extra
from lightgen_runtime.utilities.model_summary import readable_count, summarize

if TYPE_CHECKING:
    from lightgen_runtime.core.module import LightningModule
    from lightgen_runtime.trainer.trainer import Trainer


class RichModelSummary(ModelSummary):
    """Print the model's layers and parameters to stderr when a fit starts, with Rich.

    Args:
        max_depth: Levels of submodules to list: -1 for all, 0 prints nothing.
        summarize_kwargs: Arguments of `rich.table.Table`, such as `header_style`.

    Raises:
        MissingDependencyError: Rich is not installed.
    """

    def __init__(self, max_depth: int = 1, **summarize_kwargs: Any) -> None:
        super().__init__(max_depth)
        self._table_arguments = summarize_kwargs

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the table, on rank zero."""
        if not (trainer.is_global_zero and self._max_depth):
            return
        used_by = type(self).__name__
        install = "pip install rich"
        tables = import_extra("rich.table", install=install, used_by=used_by)
        consoles = import_extra("rich.console", install=install, used_by=used_by)
        summary = summarize(pl_module, self._max_depth)
        table = tables.Table(**{"header_style": "bold", **self._table_arguments})
        table.add_column("", style="dim", justify="right")
        table.add_column("Name", no_wrap=True)
        table.add_column("Type")
        table.add_column("Params", justify="right")
        table.add_column("Mode")
        for number, layer in enumerate(summary.layers):
            count = "?" if layer.is_lazy else readable_count(layer.num_parameters)
            mode = {True: "train", False: "eval", None: ""}[layer.training]
            table.add_row(str(number), layer.name, layer.layer_type, count, mode)
        console = consoles.Console(stderr=True)
        console.print(table)
        console.print(str(summary).splitlines()[-1], highlight=False)
