"""Looking at gradients."""

from __future__ import annotations

import torch
from torch import nn


def grad_norm(
    module: nn.Module, norm_type: float | int | str, group_separator: str = "/"
) -> dict[str, float]:
    """Return the norm of each parameter's gradient, and of all together.

    Args:
        module: Whose parameters.
        norm_type: Order of the norm, above 0; "inf" or infinity for the largest element.
        group_separator: Between "grad_2.0_norm" and the parameter's name.

    Returns:
        Norms by key, e.g. "grad_2.0_norm/layer.weight", and one "grad_2.0_norm_total".
        Empty if no parameter has a gradient.

    Raises:
        ValueError: The order is not above 0.

    Cost: one host sync for each parameter.
    """
    order = float(norm_type)
    if order <= 0:
        raise ValueError(f"`norm_type` is {norm_type}; it must be above 0 or 'inf'")
    prefix = f"grad_{order}_norm"
    norms = {
        f"{prefix}{group_separator}{name}": parameter.grad.detach().norm(order)
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }
    if norms:
        norms[f"{prefix}_total"] = torch.stack(list(norms.values())).norm(order)
    return {name: norm.item() for name, norm in norms.items()}
