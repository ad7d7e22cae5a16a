"""Copies of a checkpoint in memory that is used again: equal, apart, and no more than one."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor

from lightgen_runtime.io.host_copies import HostCopies


def addresses(checkpoint: dict[str, Tensor]) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in checkpoint.values()}


BIG = torch.arange(1000.0)
LOOKS = {
    "whole": BIG,
    "slice": BIG[10:20],
    "strided": BIG[15:400:7],
    "column": BIG.view(10, 100)[:, 3],
    "transposed": BIG.view(10, 100).t(),
    "expanded": BIG[3:4].expand(50),
    "of another type": BIG.view(torch.uint8)[13:29],
    "of complex numbers": torch.view_as_complex(BIG.view(500, 2))[7:90],
    "conjugate": torch.view_as_complex(BIG.view(500, 2)).conj(),
    "negative": torch.view_as_complex(BIG.view(500, 2)).conj().imag,
    "empty": torch.empty(0, 3),
    "scalar": BIG[5],
    "half": BIG.to(torch.bfloat16),
    "channels last": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
    "parameter": torch.nn.Parameter(torch.rand(3)),
}


@pytest.mark.parametrize("name", LOOKS)
def test_copy_of_a_tensor_is_equal_and_apart(name: str) -> None:
    original = LOOKS[name]
    copies = HostCopies()
    for _ in range(2):  # in new memory, and in memory used before
        copy = copies.copy({"x": original})["x"]
        assert torch.equal(copy, original)
        assert copy.dtype == original.dtype
        assert copy.stride() == original.stride() or name in ("conjugate", "negative")
        assert not copy.requires_grad
        if original.numel():
            pointers = {each.untyped_storage().data_ptr() for each in (copy, original)}
            assert len(pointers) == 2


def test_copy_of_a_sparse_tensor_is_equal() -> None:
    sparse = torch.eye(3).to_sparse()
    copy = HostCopies().copy({"x": sparse})["x"]
    assert torch.equal(copy.to_dense(), sparse.to_dense())


def test_tensors_that_share_memory_do_so_in_the_copy() -> None:
    shared = torch.zeros(100)
    copy = HostCopies().copy({"one": shared[:50], "other": shared[40:]})
    assert len(addresses(copy)) == 1
    copy["one"][45] = 1.0
    assert copy["other"][5] == 1.0


def test_only_what_is_looked_at_is_copied() -> None:
    row = torch.zeros(1000, 1000)[500]
    copy = HostCopies().copy({"x": row})["x"]
    assert copy.untyped_storage().nbytes() <= row.nbytes + 16


def test_memory_of_the_last_copy_is_used_again() -> None:
    copies = HostCopies()
    state = {"a": torch.zeros(10), "b": torch.zeros(10), "c": torch.zeros(20)}
    first = addresses(copies.copy(state))
    assert addresses(copies.copy(state)) == first
    # Between two full checkpoints, one of weights alone.
    assert addresses(copies.copy({"a": state["a"]})) < first
    assert addresses(copies.copy(state)) == first


def test_memory_of_other_sizes_is_given_back() -> None:
    copies = HostCopies()
    for size in range(100, 120):
        copies.copy({"x": torch.zeros(size, dtype=torch.uint8)})
        held = [buffer for each in copies._buffers.values() for buffer in each]
        assert sum(buffer.nbytes for buffer in held) == size


def test_what_is_no_tensor_is_copied_too() -> None:
    inner = [1, {2}, {"x": [3]}]
    original: dict[str, Any] = {"inner": inner, "pair": (inner, "text")}
    original["ordered"] = OrderedDict(a=torch.ones(1))
    copy = HostCopies().copy(original)
    assert copy == original
    assert type(copy["ordered"]) is OrderedDict
    inner[2]["x"].append(4)  # type: ignore[index]
    inner[1].add(5)  # type: ignore[attr-defined]
    assert copy["inner"] == copy["pair"][0] == [1, {2}, {"x": [3]}]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_copy_from_a_device_is_equal() -> None:
    state = {"a": torch.rand(1000, 10, device="cuda"), "b": torch.rand(3)}
    state["view"] = state["a"].t()[2:5]
    copies = HostCopies()
    for _ in range(2):
        copy = copies.copy(state)
        assert copy["a"].is_pinned()
        for name, tensor in state.items():
            assert torch.equal(copy[name], tensor.cpu())
        state["a"].add_(1.0)
