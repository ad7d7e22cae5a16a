"""Batches on a CUDA device: on which stream each is copied, and who waits for whom."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from small_runs import quiet, variant
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import DataLoader, TensorDataset

from lightgen_runtime.loops import copy_stream
from lightgen_runtime.loops.copy_stream import CopyStream

DEVICE = torch.device("cuda", 0)


class Device:
    """Stands in for torch.cuda: writes down what would be queued, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.active = "computation"
        self.pinned = True
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: "copies")
        monkeypatch.setattr(torch.cuda, "stream", self.switched)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: self)
        monkeypatch.setattr(Tensor, "is_pinned", lambda tensor: self.pinned)
        monkeypatch.setattr(
            Tensor,
            "record_stream",
            lambda tensor, stream: self.log.append(f"keep {tensor.item():.0f}"),
        )
        monkeypatch.setattr(copy_stream, "move_data_to_device", self.moved)

    @contextmanager
    def switched(self, stream: str) -> Iterator[None]:
        self.active = stream
        yield
        self.active = "computation"

    def moved(self, batch: Any, device: torch.device) -> Any:
        assert device == DEVICE
        self.log.append(f"copy on {self.active}")
        return batch

    def wait_stream(self, stream: str) -> None:
        self.log.append(f"computation waits for {stream}")


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device(monkeypatch)


def test_pinned_batch_is_copied_aside_and_waited_for(device: Device) -> None:
    batch = {"x": torch.tensor(1.0), "pair": [torch.tensor(2.0), "name", 3, None]}
    assert CopyStream(DEVICE)(batch, 0) == batch
    assert device.log == [
        "copy on copies",
        "computation waits for copies",
        "keep 1",
        "keep 2",
    ]


class Container:
    """A batch of the user's own kind: what it holds cannot be known."""

    def to(self, device: torch.device) -> Container:
        return self


@pytest.mark.parametrize(
    "batch",
    [
        Container(),
        (torch.tensor(1.0), Container()),
        pack_sequence([torch.tensor([1.0])]),  # its lengths stay on the host
    ],
)
def test_unknown_container_is_copied_before_its_step(
    device: Device, batch: Any
) -> None:
    CopyStream(DEVICE)(batch, 0)
    assert device.log == ["copy on computation"]


def test_pageable_batch_is_copied_before_its_step(device: Device) -> None:
    device.pinned = False
    CopyStream(DEVICE)((torch.tensor(1.0),), 0)
    assert device.log == ["copy on computation"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_pinned_and_pageable_batches_train_alike() -> None:
    torch.manual_seed(0)
    numbers = torch.randn(64 * 1024, 4)

    def sums(pin_memory: bool) -> Tensor:
        seen = []

        def training_step(self: Any, batch: Any, batch_idx: int) -> Tensor:
            seen.append(batch[0].sum())
            return self(batch[0]).pow(2).mean()

        loader = DataLoader(
            TensorDataset(numbers), batch_size=1024, pin_memory=pin_memory
        )
        module = variant(training_step=training_step)
        quiet(accelerator="gpu", devices=1, max_epochs=3).fit(module, loader)
        return torch.cat([torch.stack(seen), module.layer.weight.detach().flatten()])

    assert torch.equal(sums(True), sums(False))
