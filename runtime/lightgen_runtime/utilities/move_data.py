"""Moving a batch, whatever its shape, to a device."""

from __future__ import annotations

from abc import ABC
from typing import Any

import torch
from torch import Tensor

from lightgen_runtime.utilities.map_parts import map_parts


def move_data_to_device(batch: Any, device: torch.device) -> Any:
    """Return the batch with every tensor in it on `device`.

    Args:
        batch: Tensors, or anything with a `.to(device)` method, in any nesting of
            mappings, lists, tuples, named tuples and dataclasses; all else passes
            through.
        device: Where to.

    Cost: copies to an accelerator do not block the host when the source is pinned.
    """
    # From pageable memory, or to the host, an unfinished copy would be readable.
    non_blocking = device.type == "cuda"

    def move(part: Any) -> Any:
        if isinstance(part, Tensor):
            return part.to(device, non_blocking=non_blocking)
        moved = part.to(device)
        return part if moved is None else moved  # some move themselves in place

    return map_parts(batch, _Movable, move)


class _Movable(ABC):  # noqa: B024 - only its subclass check is used
    """Every class with a method `to`; what is found is remembered by class."""

    @classmethod
    def __subclasshook__(cls, subclass: type) -> bool:
        return callable(getattr(subclass, "to", None))
