"""Batches of any shape on their way to a device."""

from __future__ import annotations

from collections import OrderedDict, UserDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence

from lightgen_runtime.utilities import move_data_to_device

# A device that every machine has, and on which a moved tensor can be told.
META = torch.device("meta")


class Pair(NamedTuple):
    x: Tensor
    name: str


@dataclass(frozen=True)
class Sample:
    x: Tensor
    parts: list[Tensor]
    name: str = "sample"


def test_tensors_are_found_in_every_container() -> None:
    one = torch.ones(2)
    moved = move_data_to_device(
        OrderedDict(a=[one, (one, 3)], b=Pair(one, "x"), c=Sample(one, [one])), META
    )
    assert type(moved) is OrderedDict
    assert moved["a"][0].device == moved["a"][1][0].device == META
    assert (moved["a"][1][1], moved["b"].name) == (3, "x")
    assert isinstance(moved["b"], Pair)
    assert moved["b"].x.device == META
    assert isinstance(moved["c"], Sample)
    assert moved["c"].x.device == moved["c"].parts[0].device == META
    assert one.device.type == "cpu"


def test_what_can_move_itself_does() -> None:
    """A packed sequence, a named tuple too, keeps its batch sizes on the host."""
    packed = pack_sequence([torch.ones(3), torch.ones(2)])
    moved = move_data_to_device([packed], META)[0]
    assert moved.data.device == META
    assert moved.batch_sizes.device.type == "cpu"


class Encoding(UserDict[str, Any]):
    """A mapping with a `to` of its own, as tokenizers return, which returns nothing."""

    def to(self, device: torch.device) -> None:
        self.data = {key: value.to(device) for key, value in self.data.items()}


def test_what_moves_in_place_is_kept() -> None:
    encoding = Encoding(ids=torch.ones(1))
    assert move_data_to_device(encoding, META) is encoding
    assert encoding["ids"].device == META


@pytest.mark.parametrize("thing", [None, 3, "text", Tensor, torch.nn.Linear])
def test_anything_else_passes_through(thing: Any) -> None:
    assert move_data_to_device(thing, META) is thing
