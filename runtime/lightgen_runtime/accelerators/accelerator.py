"""The kinds of device as classes, to ask what there is and to compare types with.

A run itself needs no such object: `torch.device` says everything.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch

from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.imports import import_extra

if TYPE_CHECKING:
    from lightgen_runtime.trainer.trainer import Trainer


class Accelerator(ABC):
    """One kind of device.

    Subclass it for a kind that torch has and `Trainer` does not name, and pass an object:
    `Trainer(accelerator=...)`.
    """

    @staticmethod
    @abstractmethod
    def name() -> str:
        """Return what `Trainer(accelerator=...)` calls it."""

    @staticmethod
    @abstractmethod
    def is_available() -> bool:
        """Tell whether this machine has such a device."""

    @staticmethod
    @abstractmethod
    def auto_device_count() -> int:
        """Return how many of them `Trainer(devices="auto")` may use."""

    @staticmethod
    @abstractmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        """Return the devices of these numbers; for the CPU, that many times the CPU."""

    @staticmethod
    def parse_devices(devices: Any) -> Any:
        """Return the devices that a flag asks for, as `get_parallel_devices` takes them.

        Args:
            devices: A number of them, or their numbers.
        """
        return devices

    def setup_device(self, device: torch.device) -> None:
        """Make a process's device ready; called when its run begins."""

    def setup(self, trainer: Trainer) -> None:
        """Prepare for a run; called behind `setup_device`."""

    def teardown(self) -> None:
        """Release what a run needed; called at its end."""

    @abstractmethod
    def get_device_stats(self, device: torch.device) -> dict[str, Any]:
        """Return what the device tells of its memory and load, by name."""


class CPUAccelerator(Accelerator):
    """The processors of the host."""

    @staticmethod
    def name() -> str:
        """Return "cpu"."""
        return "cpu"

    @staticmethod
    def is_available() -> bool:
        """Return True."""
        return True

    @staticmethod
    def auto_device_count() -> int:
        """Return 1."""
        return 1

    @staticmethod
    def get_parallel_devices(devices: int) -> list[torch.device]:
        """Return the CPU, once for each process."""
        return [torch.device("cpu")] * devices

    def get_device_stats(self, device: torch.device) -> dict[str, Any]:
        """Return the load of processors, memory and swap in percent."""
        return get_cpu_stats()


class CUDAAccelerator(Accelerator):
    """CUDA devices."""

    @staticmethod
    def name() -> str:
        """Return "cuda"."""
        return "cuda"

    @staticmethod
    def is_available() -> bool:
        """Tell whether there is a CUDA device."""
        return torch.cuda.device_count() > 0

    @staticmethod
    def auto_device_count() -> int:
        """Return how many CUDA devices this process sees."""
        return torch.cuda.device_count()

    @staticmethod
    def get_parallel_devices(devices: list[int]) -> list[torch.device]:
        """Return the CUDA devices of these numbers."""
        return [torch.device("cuda", index) for index in devices]

    def get_device_stats(self, device: torch.device) -> dict[str, Any]:
        """Return the statistics of torch's allocator."""
        return dict(torch.cuda.memory_stats(device))


class MPSAccelerator(Accelerator):
    """The GPU of an Apple processor."""

    @staticmethod
    def name() -> str:
        """Return "mps"."""
        return "mps"

    @staticmethod
    def is_available() -> bool:
        """Tell whether torch can use it."""
        return torch.backends.mps.is_available()

    @staticmethod
    def auto_device_count() -> int:
        """Return 1."""
        return 1

    @staticmethod
    def get_parallel_devices(devices: list[int]) -> list[torch.device]:
        """Return the devices of these numbers, of which there is 0 only."""
        return [torch.device("mps", index) for index in devices]

    def get_device_stats(self, device: torch.device) -> dict[str, Any]:
        """Return the memory in use, in bytes."""
        return {
            "mps_current_allocated_bytes": torch.mps.current_allocated_memory(),
            "mps_driver_allocated_bytes": torch.mps.driver_allocated_memory(),
        }


_KINDS: dict[str, type[Accelerator]] = {
    "cpu": CPUAccelerator,
    "cuda": CUDAAccelerator,
    "mps": MPSAccelerator,
}


def accelerator_of(device: torch.device) -> Accelerator:
    """Return what stands for the kind of `device`; for one of a user's, its host's."""
    return _KINDS.get(device.type, CPUAccelerator)()


def get_cpu_stats() -> dict[str, float]:
    """Return the load of the host's processors, memory and swap in percent.

    Raises:
        MissingDependencyError: `psutil` is not installed.
    """
    psutil = import_extra(
        "psutil", install="pip install psutil", used_by="`get_cpu_stats`"
    )
    return {
        "cpu_vm_percent": psutil.virtual_memory().percent,
        "cpu_percent": psutil.cpu_percent(),
        "cpu_swap_percent": psutil.swap_memory().percent,
    }


def find_usable_cuda_devices(num_devices: int = -1) -> list[int]:
    """Return the numbers of CUDA devices on which memory can be allocated.

    A device in exclusive mode that another process holds is left out.

    Args:
        num_devices: How many to find; -1 for all.

    Raises:
        MisconfigurationException: There are not that many.
    """
    if num_devices == 0:
        return []
    usable: list[int] = []
    for index in range(torch.cuda.device_count()):
        try:
            torch.tensor(0.0, device=torch.device("cuda", index))
        except RuntimeError:
            continue
        usable.append(index)
        if len(usable) == num_devices:
            return usable
    if num_devices == -1 and usable:
        return usable
    raise MisconfigurationException(
        f"`find_usable_cuda_devices({num_devices})`: of the "
        f"{torch.cuda.device_count()} CUDA devices that this process sees, "
        f"{len(usable)} can be used"
    )
