"""Small functions that code for Lightning imports."""

import logging
import os
import warnings

import pytest
import torch
from torch import nn

from lightgen_runtime import Trainer
from lightgen_runtime.accelerators import (
    CPUAccelerator,
    CUDAAccelerator,
    MPSAccelerator,
    find_usable_cuda_devices,
)
from lightgen_runtime.accelerators.accelerator import accelerator_of
from lightgen_runtime.utilities import (
    find_shared_parameters,
    rank_zero_info,
    rank_zero_only,
    set_shared_parameters,
    suggested_max_num_workers,
)
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.memory import is_oom_error, recursive_detach
from lightgen_runtime.utilities.rank_zero import WarningCache, rank_prefixed_message
from lightgen_runtime.utilities.warnings import (
    PossibleUserWarning,
    disable_possible_user_warnings,
)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.inner = nn.Sequential(nn.Linear(2, 2))


def test_shared_parameters_are_found_and_shared_again() -> None:
    tied, apart = Tied(), Tied()
    tied.inner[0].weight = tied.first.weight
    shared = find_shared_parameters(tied)
    assert shared == [["first.weight", "inner.0.weight"]]
    assert find_shared_parameters(apart) == []
    assert set_shared_parameters(apart, shared) is apart
    assert apart.inner[0].weight is apart.first.weight
    assert apart.inner[0].bias is not apart.first.bias


def test_recursive_detach_reaches_into_containers() -> None:
    tensor = torch.ones(2, requires_grad=True)
    detached = recursive_detach({"a": [tensor], "b": ("kept", 3)}, to_cpu=True)
    assert not detached["a"][0].requires_grad
    assert detached["b"] == ("kept", 3)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED."), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error"), False),
        (ValueError("CUDA error: out of memory"), False),
    ],
)
def test_errors_for_want_of_memory_are_told_apart(
    error: Exception, expected: bool
) -> None:
    assert is_oom_error(error) is expected


def test_warning_cache_says_each_message_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cache = WarningCache()
    with pytest.warns(UserWarning, match="one"):
        cache.warn("one")
    cache.warn("one")  # were it said again, it would be an error here
    with pytest.warns(DeprecationWarning, match="two"):
        cache.deprecation("two")
    with caplog.at_level(logging.INFO, "lightgen_runtime"):
        cache.info("three")
        cache.info("three")
    assert caplog.messages == ["three"]
    assert cache == {"one", "two", "three"}


def test_message_takes_arguments_as_logging_does(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, "lightgen_runtime"):
        rank_zero_info("%s of %d", "one", 2)
    assert caplog.messages == ["one of 2"]


def test_other_ranks_return_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert rank_zero_only(lambda: 1)() is None
    assert rank_zero_only(lambda: 1, default=2)() == 2
    assert rank_prefixed_message("text", 1) == "[rank: 1] text"
    assert rank_prefixed_message("text", None) == "text"


def test_possible_user_warnings_can_be_disabled() -> None:
    with warnings.catch_warnings(record=True) as caught:
        disable_possible_user_warnings()
        warnings.warn("maybe", PossibleUserWarning, stacklevel=1)
    assert caught == []


def test_workers_leave_a_processor_to_each_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert [suggested_max_num_workers(n) for n in (1, 2, 8, 100)] == [7, 3, 1, 1]
    with pytest.raises(ValueError, match="at least 1"):
        suggested_max_num_workers(0)


def test_accelerators_say_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert CPUAccelerator.is_available()
    assert not CUDAAccelerator.is_available()
    assert CUDAAccelerator.auto_device_count() == 0
    assert find_usable_cuda_devices(0) == []
    with pytest.raises(MisconfigurationException, match="of the 0 CUDA devices"):
        find_usable_cuda_devices()
    names = [kind.name() for kind in (CPUAccelerator, CUDAAccelerator, MPSAccelerator)]
    assert names == ["cpu", "cuda", "mps"]
    assert CPUAccelerator.get_parallel_devices(2) == [torch.device("cpu")] * 2
    assert CUDAAccelerator.get_parallel_devices([1]) == [torch.device("cuda", 1)]


def test_devices_that_are_taken_are_not_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    def allocate(value: float, device: torch.device) -> None:
        if device.index == 0:
            raise RuntimeError("busy")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch, "tensor", allocate)
    assert find_usable_cuda_devices() == [1, 2]
    assert find_usable_cuda_devices(1) == [1]
    with pytest.raises(MisconfigurationException, match="2 can be used"):
        find_usable_cuda_devices(3)


def test_trainer_names_its_accelerator() -> None:
    trainer = Trainer(accelerator="cpu", logger=False)
    assert isinstance(trainer.accelerator, CPUAccelerator)
    assert isinstance(accelerator_of(torch.device("cuda", 1)), CUDAAccelerator)
