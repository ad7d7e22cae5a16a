"""The tensors of a checkpoint by name, wherever they lie in it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor


def map_tensors(
    data: Any, function: Callable[[str, Tensor], Any], name: str = ""
) -> Any:
    """Return plain data with `function` applied to each tensor and its name.

    A name is made of the keys and indices that lead to the tensor, such as
    "optimizer_states.0.state.3.exp_avg".

    Args:
        data: Tensors in any nesting of mappings, lists and tuples; all else passes.
        function: From a name and a tensor to what takes its place.
        name: Of `data` itself.
    """
    if isinstance(data, Tensor):
        return function(name, data)
    prefix = f"{name}." if name else ""
    if isinstance(data, Mapping):
        return {
            key: map_tensors(part, function, f"{prefix}{key}")
            for key, part in data.items()
        }
    if type(data) in (list, tuple):
        return type(data)(
            map_tensors(part, function, f"{prefix}{index}")
            for index, part in enumerate(data)
        )
    return data


def is_spread(tensor: Tensor) -> bool:
    """Tell whether each process holds a part of the tensor, as `fully_shard` makes them."""
    # Where nobody has imported it there is none.
    spread = sys.modules.get("torch.distributed.tensor")
    return spread is not None and isinstance(tensor, spread.DTensor)
