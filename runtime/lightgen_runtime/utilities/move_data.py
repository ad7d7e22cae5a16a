"""Moving a batch, whatever its shape, to a device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightgen_runtime.utilities.map_tensors import rebuilt


def move_data_to_device(batch: Any, device: torch.device) -> Any:
    """Return the batch with every tensor in it on `device`.

    Args:
        batch: Tensors, or anything with a `.to(device)` method, in any nesting of
            mappings, lists, tuples and named tuples; all else passes through.
        device: Where to.

    Cost: copies to an accelerator do not block the host when the source is pinned.
    """
    if isinstance(batch, Tensor):
        # From pageable memory, or to the host, an unfinished copy would be readable.
        return batch.to(device, non_blocking=device.type == "cuda")
    if isinstance(batch, Mapping):
        moved = {
            key: move_data_to_device(value, device) for key, value in batch.items()
        }
        return moved if type(batch) is dict else rebuilt(batch, moved)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(move_data_to_device(part, device) for part in batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(move_data_to_device(part, device) for part in batch)
    if callable(getattr(batch, "to", None)) and not isinstance(batch, type):
        return batch.to(device)
    return batch
