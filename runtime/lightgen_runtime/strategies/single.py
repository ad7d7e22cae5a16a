"""One process, one device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightgen_runtime.io.checkpoint_io import CheckpointIO
from lightgen_runtime.strategies.base import Strategy


class SingleDeviceStrategy(Strategy):
    """Everything on one device: communication is the identity.

    Example:
        >>> SingleDeviceStrategy("cpu").root_device
        device(type='cpu')
    """

    def __init__(
        self,
        device: torch.device | str = "cpu",
        checkpoint_io: CheckpointIO | None = None,
    ) -> None:
        super().__init__(checkpoint_io)
        self._device = torch.device(device)

    @property
    def root_device(self) -> torch.device:
        """See `Strategy`."""
        return self._device

    @property
    def world_size(self) -> int:
        """See `Strategy`."""
        return 1

    @property
    def global_rank(self) -> int:
        """See `Strategy`."""
        return 0

    @property
    def local_rank(self) -> int:
        """See `Strategy`."""
        return 0

    @property
    def node_rank(self) -> int:
        """See `Strategy`."""
        return 0

    def setup_environment(self) -> None:
        """See `Strategy`."""
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)

    def place(self, module: nn.Module) -> None:
        """See `Strategy`."""
        module.to(self._device)

    def reduce(
        self, tensor: Tensor, group: Any = None, reduce_op: Any = "mean"
    ) -> Tensor:
        """See `Strategy`."""
        return tensor

    def broadcast(self, value: Any, src: int = 0) -> Any:
        """See `Strategy`."""
        return value

    def barrier(self, name: str | None = None) -> None:
        """See `Strategy`."""

    def all_gather(
        self, tensor: Tensor, group: Any = None, sync_grads: bool = False
    ) -> Tensor:
        """See `Strategy`."""
        return tensor

    def gather_objects(self, value: Any, group: Any = None) -> list[Any]:
        """See `Strategy`."""
        return [value]

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        """See `Strategy`."""
        return decision

    def teardown(self) -> None:
        """See `Strategy`."""
