"""Which devices this machine has, and which of them a run uses."""

from __future__ import annotations

from difflib import get_close_matches

import torch

from lightgen_runtime.accelerators.accelerator import (
    Accelerator,
    CPUAccelerator,
    CUDAAccelerator,
    MPSAccelerator,
    find_usable_cuda_devices,
)
from lightgen_runtime.utilities.exceptions import MisconfigurationException

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


def available_accelerators() -> list[str]:
    """Name the accelerators that can be used now, the fastest first."""
    found = ["cpu"]
    if torch.backends.mps.is_available():
        found.insert(0, "mps")
    if torch.cuda.is_available():
        found.insert(0, "cuda")
    return found


def choose_device(
    accelerator: str = "auto", devices: int | str | list[int] = "auto"
) -> torch.device:
    """Return the one device that the flags ask for.

    Args:
        accelerator: "auto" (the fastest there is), "cpu", "gpu" (any kind), "cuda" or
            "mps".
        devices: "auto", 1, or the index of a device in a list, such as `[2]`.

    Raises:
        MisconfigurationException: The machine has no such device, or several are asked
            for.
    """
    have = available_accelerators()
    kind = _kind(accelerator, have)
    index = _index(devices)
    if kind == "cpu":
        if index:
            raise MisconfigurationException(
                f"`Trainer(accelerator='cpu', devices={devices!r})`: a CPU has no numbered "
                "devices; use devices=1"
            )
        return torch.device("cpu")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if index >= count:
        raise MisconfigurationException(
            f"`Trainer(devices={devices!r})`: this machine has {count} {kind} device(s), "
            f"numbered from 0 to {count - 1}"
        )
    return torch.device(kind, index)


def _kind(accelerator: str, have: list[str]) -> str:
    name = accelerator.lower() if isinstance(accelerator, str) else accelerator
    if name not in ACCEPTED:
        near = get_close_matches(str(name), ACCEPTED, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise MisconfigurationException(
            f"`Trainer(accelerator={accelerator!r})` is unknown; accepted are "
            f"{', '.join(map(repr, ACCEPTED))}.{hint}"
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


def _index(devices: int | str | list[int]) -> int:
    if devices in ("auto", 1, "1", -1, "-1"):
        return 0
    if isinstance(devices, (list, tuple)):
        match list(devices):
            case [int(index)]:
                return index
    raise MisconfigurationException(
        f"`Trainer(devices={devices!r})`: this version runs on one device; accepted are "
        "'auto', 1, or one index in a list such as [0]"
    )
