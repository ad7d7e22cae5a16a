"""Running out of memory: telling it from other errors, and giving memory back."""

from __future__ import annotations

import gc

import torch

# Source: what CUDA, cuDNN and torch's allocator for the CPU say; only the first of them
# has an exception of its own.
_MESSAGES = (
    ("CUDA", "out of memory"),
    ("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED.",),
    ("DefaultCPUAllocator: can't allocate memory",),
)


def is_oom_error(exception: BaseException) -> bool:
    """Tell whether an exception means that memory did not suffice."""
    if isinstance(exception, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(exception)
    return isinstance(exception, RuntimeError) and any(
        all(part in text for part in parts) for parts in _MESSAGES
    )


def garbage_collection_cuda() -> None:
    """Free what nobody refers to, on the host and on CUDA devices."""
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
