"""Which devices this machine has, and which of them a run uses."""

from __future__ import annotations

import os
import sys
from collections import Counter
from typing import Any

import torch

from lightgen_runtime.accelerators.accelerator import (
    Accelerator,
    CPUAccelerator,
    CUDAAccelerator,
    MPSAccelerator,
    find_usable_cuda_devices,
)
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.nearest import did_you_mean

__all__ = [
    "Accelerator",
    "CPUAccelerator",
    "CUDAAccelerator",
    "MPSAccelerator",
    "available_accelerators",
    "choose_device",
    "find_usable_cuda_devices",
]

ACCEPTED = ("auto", "cpu", "gpu", "cuda", "mps")

_FORMS = (
    "accepted are 'auto', a number of devices such as 2 or '2', -1 for all, and indices "
    "such as [0, 2] or '0,2'"
)


def available_accelerators() -> list[str]:
    """Name the accelerators that can be used now, the fastest first."""
    # Asking through the driver's library: a process that has asked CUDA itself cannot be
    # forked any more.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    found = ["cpu"]
    if torch.backends.mps.is_available():
        found.insert(0, "mps")
    if torch.cuda.is_available():
        found.insert(0, "cuda")
    return found


def choose_devices(
    accelerator: str | Accelerator = "auto",
    devices: int | str | list[int] = "auto",
    processes: int | None = None,
) -> list[torch.device]:
    """Return the devices of this machine that the flags ask for, one a process.

    Args:
        accelerator: "auto" (the fastest there is), "cpu", "gpu" (any kind), "cuda" or
            "mps"; or an `Accelerator`.
        devices: "auto"; a number, such as 2 or "2"; -1 for all; or indices, such as
            [0, 2] or "0,2". On a CPU, which counts as one device, a number is one of
            processes.
        processes: How many processes a launcher has started here, for "auto"; it may have
            given each of them one card, which is then its only one.

    Raises:
        MisconfigurationException: The machine has no such devices.
    """
    own = isinstance(accelerator, Accelerator) and accelerator.name() not in ACCEPTED
    kind = "" if own else _kind(accelerator, available_accelerators())
    asked = _parsed(devices)
    if devices == "auto" and (processes or hasattr(sys, "ps1")):
        # In a notebook one device: what runs in other processes is hard to look at.
        asked = processes or 1
    if isinstance(accelerator, Accelerator) and own:
        return _of_own_kind(accelerator, asked)
    if kind == "cpu":
        return [torch.device("cpu")] * _cpu_processes(devices, asked)
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if kind == "cuda" and count == 1 and processes and asked in (None, processes):
        # Each its own, as far as can be seen from here.
        return [torch.device(kind, 0)] * processes
    if asked is None:
        asked = count
    indices = list(range(asked)) if isinstance(asked, int) else asked
    if max(indices) >= count:
        raise MisconfigurationException(
            f"`Trainer(devices={devices!r})`: this machine has {count} {kind} device(s), "
            f"numbered from 0 to {count - 1}: {_inventory()}"
        )
    return [torch.device(kind, index) for index in indices]


def _of_own_kind(
    accelerator: Accelerator, asked: int | list[int] | None
) -> list[torch.device]:
    """Return the devices of a kind that a class of the user's own stands for."""
    given = f"`Trainer(accelerator={type(accelerator).__name__}())`"
    if not accelerator.is_available():
        raise MisconfigurationException(
            f"{given}: its `is_available` says that this machine has none. It has "
            f"{_inventory()}."
        )
    if asked is None:
        asked = accelerator.auto_device_count()
    found = accelerator.get_parallel_devices(accelerator.parse_devices(asked))
    if not found or not all(isinstance(each, torch.device) for each in found):
        raise MisconfigurationException(
            f"{given}: its `get_parallel_devices({asked!r})` returned {found!r}; a list of "
            "`torch.device`, one a process, is needed"
        )
    return found


def _kind(accelerator: Any, have: list[str]) -> str:
    given = accelerator
    if isinstance(accelerator, Accelerator):
        given = accelerator.name()
    name = given.lower() if isinstance(given, str) else given
    if name not in ACCEPTED:
        raise MisconfigurationException(
            f"`Trainer(accelerator={accelerator!r})` is unknown; accepted are "
            f"{', '.join(map(repr, ACCEPTED))}, or an `Accelerator`."
            f"{_meant(name)}{_instance_of(accelerator)} This machine has "
            f"{_inventory()}."
        )
    if name == "auto":
        return have[0]
    if name == "gpu" and have[0] != "cpu":
        return have[0]
    if name not in have:
        raise MisconfigurationException(
            f"`Trainer(accelerator={accelerator!r})`: this machine has {_inventory()}"
            f"{_why_no_cuda() if name in ('gpu', 'cuda') else ''}. "
            "Use accelerator='auto' to take the fastest there is."
        )
    return str(name)


def _meant(name: object) -> str:
    if name in ("tpu", "hpu", "ipu"):  # which are near to 'gpu', and something else
        return f" {str(name).upper()}s are not supported."
    return did_you_mean(name, ACCEPTED)


def _instance_of(accelerator: Any) -> str:
    if isinstance(accelerator, type) and issubclass(accelerator, Accelerator):
        return f" Make an instance: {accelerator.__name__}()."
    return ""


def _why_no_cuda() -> str:
    """Return what a user can do about a card that torch does not see."""
    if torch.version.cuda is None and torch.version.hip is None:
        return f"; torch {torch.__version__} was installed without support for GPUs"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return f"; CUDA_VISIBLE_DEVICES={visible!r} says which cards may be used"
    return "; if it has a card, `nvidia-smi` tells whether its driver runs"


def _parsed(devices: int | str | list[int]) -> int | list[int] | None:
    """Return a number of devices, their indices, or None for all there are.

    Raises:
        MisconfigurationException: `devices` has no accepted form.
    """
    asked: object = devices
    if isinstance(devices, str):
        parts = [part.strip() for part in devices.split(",") if part.strip()]
        if parts and all(part.removeprefix("-").isdigit() for part in parts):
            numbers = [int(part) for part in parts]
            asked = numbers if "," in devices else numbers[0]
    if asked in ("auto", -1) and not isinstance(asked, bool):
        return None
    if type(asked) is int and asked > 0:
        return asked
    if isinstance(asked, (list, tuple)):
        whole = all(type(index) is int and index >= 0 for index in asked)
        if asked and whole and len(set(asked)) == len(asked):
            return list(asked)
    raise MisconfigurationException(
        f"`Trainer(devices={devices!r})`: {_FORMS}; at least one, each once. This machine "
        f"has {_inventory()}."
    )


def _cpu_processes(
    devices: int | str | list[int], asked: int | list[int] | None
) -> int:
    if isinstance(asked, int):
        return asked
    if asked in (None, [0]):
        return 1
    raise MisconfigurationException(
        f"`Trainer(accelerator='cpu', devices={devices!r})`: a CPU has no numbered "
        "devices; give the number of processes, such as devices=1 or devices=2"
    )


def _inventory() -> str:
    found = _cards() if torch.cuda.is_available() else []
    found += ["1 mps device"] if torch.backends.mps.is_available() else []
    return ", ".join([*found, "a CPU"])


def _cards() -> list[str]:
    count = torch.cuda.device_count()
    try:
        cards = [torch.cuda.get_device_properties(index) for index in range(count)]
    except (AssertionError, RuntimeError):  # the driver does not answer
        return [f"{count} cuda device(s)"]
    kinds = Counter(f"{c.name} of {c.total_memory / 2**30:.0f} GiB" for c in cards)
    return [f"{number} cuda device(s) {kind}" for kind, number in kinds.items()]
