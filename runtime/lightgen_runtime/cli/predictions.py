"""Predictions as a file: a table where they are one, PyTorch's format otherwise."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightgen_runtime.utilities.atomic_write import atomic_write

_UNNAMED = "prediction"


def write_predictions(predictions: Sequence[Any], folder: Path) -> Path:
    """Write what `Trainer.predict` returned and return the file.

    Batches of tensors `(batch,)` or `(batch, columns)`, or mappings of such, become
    `predictions.csv`, one row a sample; anything else `predictions.pt`, as it is.

    Args:
        predictions: One entry a batch.
        folder: Where the file goes; an older one of that name is replaced.
    """
    columns = _columns(predictions)
    if columns is None:
        path = folder / "predictions.pt"
        with atomic_write(path) as stream:
            torch.save(predictions, stream)
        return path
    path = folder / "predictions.csv"
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*map(_cells, columns.values()), strict=True))
    with atomic_write(path) as stream:
        stream.write(text.getvalue().encode())
    return path


def _columns(batches: Sequence[Any]) -> dict[str, Tensor] | None:
    """Return the columns of the table, or None if the batches do not form one."""
    named = [batch if isinstance(batch, Mapping) else {"": batch} for batch in batches]
    if not named or any(batch.keys() != named[0].keys() for batch in named):
        return None
    columns: dict[str, Tensor] = {}
    for name in named[0]:
        parts = [batch[name] for batch in named]
        if not all(isinstance(part, Tensor) and part.ndim in (1, 2) for part in parts):
            return None
        if len({part.shape[1:] for part in parts}) != 1:
            return None
        columns.update(_split(str(name) or _UNNAMED, torch.cat(parts).cpu()))
    lengths = {len(column) for column in columns.values()}
    return columns if len(lengths) == 1 else None


def _split(name: str, values: Tensor) -> dict[str, Tensor]:
    if values.ndim == 1:
        return {name: values}
    return {f"{name}_{index}": values[:, index] for index in range(values.shape[1])}


def _cells(column: Tensor) -> list[Any]:
    """Return one cell a row; floats as short as they can be read back the same."""
    if not column.is_floating_point():
        return column.tolist()
    digits = 17 if column.dtype == torch.float64 else 9
    return [f"{value:.{digits}g}" for value in column.tolist()]
