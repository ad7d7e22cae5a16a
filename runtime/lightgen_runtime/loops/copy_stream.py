"""Copying a batch to a CUDA device while the step before is still computed there."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightgen_runtime.utilities.map_parts import map_parts
from lightgen_runtime.utilities.move_data import move_data_to_device


class CopyStream:
    """Copies pinned batches on a stream of its own; others as usual.

    The host is ahead of the device, so the copy it asks for runs beside the steps that
    the device has yet to finish. Only the step that reads the batch waits for it. From
    pageable memory a copy waits for the host whatever its stream, and of a container
    of the user's own it is not known which tensors it holds: both stay on the stream
    of the computation.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __call__(self, batch: Any, dataloader_idx: int) -> Any:
        """Return the batch on the device, ready for whatever is computed next."""
        if not _is_pinned(batch):
            return move_data_to_device(batch, self._device)
        with torch.cuda.stream(self._stream):
            moved = move_data_to_device(batch, self._device)
        computation = torch.cuda.current_stream(self._device)
        computation.wait_stream(self._stream)
        return map_parts(moved, Tensor, partial(_used_on, computation))


def _is_pinned(batch: Any) -> bool:
    """Tell whether a batch is known to be all in pinned memory."""
    if isinstance(batch, Tensor):
        return batch.is_pinned()
    if type(batch) is dict:
        return all(map(_is_pinned, batch.values()))
    if isinstance(batch, (list, tuple)) and not hasattr(batch, "to"):
        return all(map(_is_pinned, batch))
    return batch is None or isinstance(batch, (str, bytes, int, float))


def _used_on(stream: torch.cuda.Stream, tensor: Tensor) -> Tensor:
    """Return the tensor; its memory is not given away before that stream is done."""
    tensor.record_stream(stream)
    return tensor
