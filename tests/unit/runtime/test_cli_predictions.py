"""Predictions become a table where they are one, and nothing is lost otherwise."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from torch import Tensor

from lightgen_runtime.cli.predictions import write_predictions


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as stream:
        return list(csv.reader(stream))


def test_vectors_become_one_column_over_all_batches(tmp_path: Path) -> None:
    path = write_predictions([torch.tensor([3, 1]), torch.tensor([2])], tmp_path)
    assert path == tmp_path / "predictions.csv"
    assert rows(path) == [["prediction"], ["3"], ["1"], ["2"]]


def test_matrices_become_numbered_columns(tmp_path: Path) -> None:
    path = write_predictions([torch.tensor([[0.5, 0.25]])], tmp_path)
    assert rows(path) == [["prediction_0", "prediction_1"], ["0.5", "0.25"]]


def test_mappings_name_their_columns(tmp_path: Path) -> None:
    batch = {"label": torch.tensor([1, 0]), "probability": torch.tensor([0.9, 0.6])}
    header, first, _ = rows(write_predictions([batch], tmp_path))
    assert header == ["label", "probability"]
    assert first == ["1", "0.899999976"]


def test_float_cells_read_back_as_the_same_numbers(tmp_path: Path) -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        values = torch.rand(50, generator=torch.Generator().manual_seed(0)).to(dtype)
        _, *cells = rows(write_predictions([values], tmp_path))
        read = torch.tensor([float(cell) for [cell] in cells], dtype=torch.float64)
        assert torch.equal(read.to(dtype), values)


def test_anything_else_is_kept_as_it_is(tmp_path: Path) -> None:
    images = [torch.ones(2, 3, 4)]
    path = write_predictions(images, tmp_path)
    assert path == tmp_path / "predictions.pt"
    assert torch.equal(torch.load(path, weights_only=True)[0], images[0])


def test_batches_of_unequal_kind_are_kept_as_they_are(tmp_path: Path) -> None:
    uneven: list[list[Tensor | dict[str, Tensor]]] = [
        [torch.ones(2), {"a": torch.ones(2)}],
        [torch.ones(2, 3), torch.ones(2, 4)],
        [{"a": torch.ones(2), "b": torch.ones(3)}],
    ]
    for batches in uneven:
        assert write_predictions(batches, tmp_path).suffix == ".pt"
