"""Batch normalization over what all processes have in their batches, not each its own."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def synced(module: nn.Module) -> Callable[[], None]:
    """Put torch's `SyncBatchNorm` in place of each batch normalization inside a module.

    Parameters, buffers and their names stay.

    Args:
        module: Itself no batch normalization; changed in place.

    Returns:
        What puts the former layers back, with the weights and statistics of then.
    """
    former = [
        (parent, name, layer)
        for parent in module.modules()
        for name, layer in parent.named_children()
        if isinstance(layer, _BatchNorm) and not isinstance(layer, nn.SyncBatchNorm)
    ]
    nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]

    def restore() -> None:
        for parent, name, layer in former:
            trained = getattr(parent, name)
            layer._parameters, layer._buffers = trained._parameters, trained._buffers
            layer.train(trained.training)
            setattr(parent, name, layer)

    return restore
