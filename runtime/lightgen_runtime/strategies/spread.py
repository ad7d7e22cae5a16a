"""Tensors of which each process holds a part: torch's `DTensor`.

Imported when a strategy needs it: `torch.distributed.tensor` takes a while.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from lightgen_runtime.utilities.compiled_names import plain_name
from lightgen_runtime.utilities.map_parts import map_parts


def is_spread(tensor: Tensor) -> bool:
    """Tell whether each process holds a part of the tensor."""
    return isinstance(tensor, DTensor)


def sharded_modules(module: nn.Module) -> list[Any]:
    """Return the modules that `fully_shard` was applied to."""
    return [part for part in module.modules() if isinstance(part, FSDPModule)]


def through_forward(module: nn.Module, step: Callable[..., Any]) -> Callable[..., Any]:
    """Return a step that puts the weights of `module` together as its forward does."""
    name = "_lightgen_step"
    vars(module)[name] = step
    register_fsdp_forward_method(module, name)
    return vars(module).pop(name)  # type: ignore[no-any-return]


def whole(state: dict[str, Any], keep: bool) -> dict[str, Any]:
    """Return a state whose spread tensors are whole, in host memory.

    Collective: every process calls it. No more than one tensor is whole on a device.

    Args:
        state: Tensors in any nesting; those that are not spread stay as they are.
        keep: Whether this process wants them; else it gets tensors without content.
    """

    def put_together(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, DTensor):
            return tensor
        # Where the network is; offloaded ones are in host memory.
        here: Any = tensor.detach().to(tensor.device_mesh.device_type)
        full: Tensor = here.full_tensor()
        return full.cpu() if keep else torch.empty_like(full, device="meta")

    gathered: dict[str, Any] = map_parts(state, Tensor, put_together)
    return gathered


def spread_like(tensor: Tensor, like: Any) -> Tensor:
    """Return this process's part of a whole tensor, if `like` is spread."""
    if (
        not isinstance(like, DTensor)
        or isinstance(tensor, DTensor)
        or tensor.shape != like.shape
    ):
        return tensor
    return distribute_tensor(
        tensor.detach(), like.device_mesh, like.placements, src_data_rank=None
    )


def spread_weights(module: nn.Module, weights: dict[str, Any]) -> dict[str, Any]:
    """Return whole weights as this process holds the module's."""
    own = module.state_dict()
    return {
        name: (
            spread_like(value, own.get(plain_name(name)))
            if isinstance(value, Tensor)
            else value
        )
        for name, value in weights.items()
    }


def spread_optimizer_state(
    optimizer: Optimizer, state: dict[str, Any]
) -> dict[str, Any]:
    """Return an optimizer's whole state as this process holds its parameters."""
    numbers = [n for group in state["param_groups"] for n in group["params"]]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    own = dict(zip(numbers, parameters, strict=False))
    return {
        **state,
        "state": {
            number: map_parts(entry, Tensor, partial(spread_like, like=own.get(number)))
            for number, entry in state["state"].items()
        },
    }


def clip_norm(parameters: Sequence[Tensor], max_norm: float) -> None:
    """Limit the norm of all gradients together, over all processes, in place.

    Collective: every process calls it.
    """
    by_mesh: dict[Any, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            mesh = getattr(parameter.grad, "device_mesh", None)
            by_mesh.setdefault(mesh, []).append(parameter)
    norms = [_norm_of([p.grad for p in group]) for group in by_mesh.values()]
    if not norms:
        return
    total = torch.linalg.vector_norm(torch.stack(norms))
    # One call for each: torch does not scale tensors of several meshes together.
    for group in by_mesh.values():
        clip_grads_with_norm_(group, max_norm, total)


def _norm_of(gradients: Any) -> Tensor:
    norm = get_total_norm(gradients)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


@torch.no_grad()
def clip_value(parameters: Sequence[Tensor], limit: float) -> None:
    """Limit each element of the gradients, in place."""
    for parameter in parameters:
        gradient = parameter.grad
        if isinstance(gradient, DTensor):
            if isinstance(parameter, DTensor):  # its parts may be still to be summed
                gradient = gradient.redistribute(placements=parameter.placements)
                parameter.grad = gradient
            gradient = gradient.to_local()
        if gradient is not None:
            gradient.clamp_(-limit, limit)
