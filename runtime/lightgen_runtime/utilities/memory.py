"""Running out of memory: telling it from other errors, and giving memory back."""

from __future__ import annotations

import gc
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map


def is_oom_error(exception: BaseException) -> bool:
    """Tell whether an exception means that memory did not suffice."""
    return (
        isinstance(exception, torch.OutOfMemoryError | MemoryError)
        or is_cuda_out_of_memory(exception)
        or is_cudnn_snafu(exception)
        or is_out_of_cpu_memory(exception)
    )


# Source: what CUDA, cuDNN and torch's allocator for the CPU say; only the first of them
# has an exception of its own.


def is_cuda_out_of_memory(exception: BaseException) -> bool:
    """Tell whether an exception means that the memory of a CUDA device did not suffice."""
    return _says(exception, "CUDA", "out of memory")


def is_cudnn_snafu(exception: BaseException) -> bool:
    """Tell whether an exception is the one by which cuDNN means too little memory."""
    return _says(exception, "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED.")


def is_out_of_cpu_memory(exception: BaseException) -> bool:
    """Tell whether an exception means that the memory of the host did not suffice."""
    return _says(exception, "DefaultCPUAllocator: can't allocate memory")


def _says(exception: BaseException, *parts: str) -> bool:
    text = str(exception)
    return isinstance(exception, RuntimeError) and all(part in text for part in parts)


def garbage_collection_cuda() -> None:
    """Free what nobody refers to, on the host and on CUDA devices."""
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def recursive_detach(in_dict: Any, to_cpu: bool = False) -> Any:
    """Return a copy of a nested container whose tensors have no graph.

    Args:
        in_dict: Tensors in any nesting of dictionaries, lists and tuples.
        to_cpu: Move them to the host as well.
    """

    def detached(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.detach().cpu() if to_cpu else value.detach()

    return tree_map(detached, in_dict)
