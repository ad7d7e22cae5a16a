"""Which devices this machine has, and which of them a run uses."""

from __future__ import annotations

import sys

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
    found = ["cpu"]
    if torch.backends.mps.is_available():
        found.insert(0, "mps")
    if torch.cuda.is_available():
        found.insert(0, "cuda")
    return found


def choose_devices(
    accelerator: str = "auto",
    devices: int | str | list[int] = "auto",
    processes: int | None = None,
) -> list[torch.device]:
    """Return the devices of this machine that the flags ask for, one a process.

    Args:
        accelerator: "auto" (the fastest there is), "cpu", "gpu" (any kind), "cuda" or
            "mps".
        devices: "auto"; a number, such as 2 or "2"; -1 for all; or indices, such as
            [0, 2] or "0,2". On a CPU, which counts as one device, a number is one of
            processes.
        processes: How many processes somebody has started here already, for "auto".

    Raises:
        MisconfigurationException: The machine has no such devices.
    """
    have = available_accelerators()
    kind = _kind(accelerator, have)
    asked = _parsed(devices)
    if devices == "auto" and (processes or hasattr(sys, "ps1")):
        # In a notebook one device: an interactive session cannot start processes.
        asked = processes or 1
    if kind == "cpu":
        return [torch.device("cpu")] * _cpu_processes(devices, asked)
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if asked is None:
        asked = count
    indices = list(range(asked)) if isinstance(asked, int) else asked
    if max(indices) >= count:
        raise MisconfigurationException(
            f"`Trainer(devices={devices!r})`: this machine has {count} {kind} device(s), "
            f"numbered from 0 to {count - 1}"
        )
    return [torch.device(kind, index) for index in indices]


def _kind(accelerator: str, have: list[str]) -> str:
    name = accelerator.lower() if isinstance(accelerator, str) else accelerator
    if name not in ACCEPTED:
        raise MisconfigurationException(
            f"`Trainer(accelerator={accelerator!r})` is unknown; accepted are "
            f"{', '.join(map(repr, ACCEPTED))}.{did_you_mean(name, ACCEPTED)}"
        )
    if name == "auto":
        return have[0]
    if name == "gpu" and have[0] != "cpu":
        return have[0]
    if name not in have:
        raise MisconfigurationException(
            f"`Trainer(accelerator={accelerator!r})`: this machine has {', '.join(have)}. "
            "Use accelerator='auto' to take the fastest there is."
        )
    return str(name)


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
    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = [f"{cuda} cuda device(s)"] if cuda else []
    found += ["1 mps device"] if torch.backends.mps.is_available() else []
    return ", ".join([*found, "a CPU"])
