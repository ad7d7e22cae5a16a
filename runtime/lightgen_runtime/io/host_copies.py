"""Copying a checkpoint into host memory that is kept for the next copy.

Memory that is new to the process has to be mapped page by page, which takes longer than
filling it; so that of the last copy is filled again.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightgen_runtime.io.named_tensors import is_spread
from lightgen_runtime.utilities.map_parts import map_parts

# No element of a tensor is larger, so a piece of memory that begins at a multiple can be
# viewed as any type that the original was viewed as.
_ALIGNMENT = 16


class _Memory(NamedTuple):
    """A storage that tensors look at: where it is, and how to find it again."""

    device: torch.device
    address: int


class HostCopies:
    """Copies of checkpoints in host memory, of which the newest is good.

    Each storage is copied once, however many tensors look at it, and only from the first
    to the last byte that any of them uses. From a CUDA device the copy goes to pinned
    memory and is waited for once.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[int, bool], list[Tensor]] = {}
        self._largest = 0

    def copy(self, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """Return `checkpoint` with nothing in common with the original.

        The tensors of the copy before are overwritten.

        Args:
            checkpoint: Data in any nesting. Whatever is no tensor is copied as well.
        """
        tensors: dict[int, Tensor] = {}

        def note(tensor: Tensor) -> None:
            if not tensor.is_meta:  # those hold nothing
                tensors[id(tensor)] = tensor

        map_parts(checkpoint, Tensor, note)
        parts = {key: _on_device(tensor) for key, tensor in tensors.items()}
        plain = {key: part for key, part in parts.items() if _is_plain(part)}
        copies = self._copies_of(plain)
        for key, part in parts.items():
            if key not in plain:
                copies[key] = part.to("cpu", copy=True)
        for device in {part.device for part in parts.values()}:
            if device.type != "cpu":
                torch.accelerator.current_stream(device).synchronize()
        memo = {key: _like(tensors[key], copies[key]) for key in tensors}
        return deepcopy(checkpoint, dict(memo))

    def _copies_of(self, tensors: dict[int, Tensor]) -> dict[int, Tensor]:
        used: dict[_Memory, tuple[int, int]] = {}
        for tensor in tensors.values():
            memory, (first, end) = _memory(tensor), _bytes_used(tensor)
            other_first, other_end = used.get(memory, (first, end))
            first, end = min(first, other_first), max(end, other_end)
            used[memory] = first // _ALIGNMENT * _ALIGNMENT, end
        pinned = {memory: memory.device.type == "cuda" for memory in used}
        wanted = [
            (end - start, pinned[memory]) for memory, (start, end) in used.items()
        ]
        buffers = dict(zip(used, self._take(wanted), strict=True))
        copies: dict[int, Tensor] = {}
        filled: set[_Memory] = set()
        for key, tensor in tensors.items():
            memory = _memory(tensor)
            start, end = used[memory]
            buffer = buffers[memory]
            if memory not in filled:
                filled.add(memory)
                original = torch.empty(0, dtype=torch.uint8, device=tensor.device)
                original.set_(tensor.untyped_storage(), start, (end - start,), (1,))
                buffer.copy_(original, non_blocking=True)
            offset = tensor.storage_offset() - start // tensor.itemsize
            copies[key] = torch.empty(0, dtype=tensor.dtype).set_(
                buffer.untyped_storage(), offset, tensor.shape, tensor.stride()
            )
        return copies

    def _take(self, wanted: Iterable[tuple[int, bool]]) -> list[Tensor]:
        """Return buffers of these sizes in bytes, each pinned or not.

        What is held never exceeds the largest copy so far.
        """
        idle = self._buffers
        taken: list[tuple[tuple[int, bool], Tensor | None]] = [
            (kind, idle[kind].pop() if idle.get(kind) else None) for kind in wanted
        ]
        size = sum(kind[0] for kind, _ in taken)
        self._largest = max(self._largest, size)
        unused = sum(kind[0] * len(buffers) for kind, buffers in idle.items())
        if size + unused > self._largest:
            idle.clear()
        result = [
            (
                torch.empty(kind[0], dtype=torch.uint8, pin_memory=kind[1])
                if buffer is None
                else buffer
            )
            for kind, buffer in taken
        ]
        for (kind, _), buffer in zip(taken, result, strict=True):
            idle.setdefault(kind, []).append(buffer)
        return result


def _on_device(tensor: Tensor) -> Tensor:
    """Return what this process holds of a tensor, which may be spread over several."""
    tensor = tensor.detach()
    if not is_spread(tensor):
        return tensor
    part: Tensor = tensor.to_local()  # type: ignore[attr-defined]
    return part


def _like(original: Tensor, copy: Tensor) -> Tensor:
    """Return this process's part as what the original is."""
    if not is_spread(original):
        return copy
    from torch.distributed.tensor import DTensor

    # Not `from_local`, which would move the copy back to the mesh's device.
    return DTensor(copy, original._spec, requires_grad=False)  # type: ignore[attr-defined,no-untyped-call]


def _is_plain(tensor: Tensor) -> bool:
    """Tell whether a tensor is a strided look at memory and nothing else."""
    return (
        type(tensor) is Tensor
        and tensor.layout is torch.strided
        and not (tensor.is_quantized or tensor.is_conj() or tensor.is_neg())
        and tensor.numel() > 0
    )


def _memory(tensor: Tensor) -> _Memory:
    return _Memory(tensor.device, tensor.untyped_storage().data_ptr())


def _bytes_used(tensor: Tensor) -> tuple[int, int]:
    """Return the first byte of its storage that a tensor uses, and that behind the last."""
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    last = sum((size - 1) * stride for size, stride in steps)
    first = int(tensor.storage_offset())
    return first * tensor.itemsize, (first + int(last) + 1) * tensor.itemsize
