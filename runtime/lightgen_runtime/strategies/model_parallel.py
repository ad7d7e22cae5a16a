"""Several processes in a mesh, on which `configure_model` shares the layers out."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightgen_runtime.io.checkpoint_io import CheckpointIO
from lightgen_runtime.strategies.parallel import DEFAULT_TIMEOUT
from lightgen_runtime.strategies.sharded import ShardedStrategy
from lightgen_runtime.utilities.exceptions import MisconfigurationException

Size = int | Literal["auto"]


class ModelParallelStrategy(ShardedStrategy):
    """Processes in rows and columns; the module says what each holds.

    `configure_model` finds them as `self.device_mesh`, with the dimensions
    "data_parallel" and "tensor_parallel", and applies torch's `parallelize_module` along
    the one and `fully_shard` along the other. Processes that differ in "tensor_parallel"
    alone read the same batches.

    Args:
        data_parallel_size: How many read different data; "auto" is the number of nodes.
        tensor_parallel_size: How many compute one batch together; "auto" is the number of
            devices on a node.
        save_distributed_checkpoint: Whether each process writes its parts of a
            checkpoint; else rank 0 writes one file that loads anywhere.
        process_group_backend: See `DDPStrategy`.
        timeout: How long a process waits for the others before it gives up.
        parallel_devices: This node's devices, one a process; None takes the trainer's.
        checkpoint_io: How checkpoints are written.

    Raises:
        MisconfigurationException: A size is no whole number of at least 1.

    Compat: by default a checkpoint is one file.
    """

    def __init__(
        self,
        data_parallel_size: Size = "auto",
        tensor_parallel_size: Size = "auto",
        save_distributed_checkpoint: bool = False,
        process_group_backend: str | None = None,
        timeout: timedelta = DEFAULT_TIMEOUT,
        *,
        parallel_devices: list[torch.device] | None = None,
        checkpoint_io: CheckpointIO | None = None,
    ) -> None:
        super().__init__(
            parallel_devices=parallel_devices,
            checkpoint_io=checkpoint_io,
            process_group_backend=process_group_backend,
            timeout=timeout,
        )
        self._wanted = (data_parallel_size, tensor_parallel_size)
        for name, size in zip(("data", "tensor"), self._wanted, strict=True):
            whole = isinstance(size, int) and not isinstance(size, bool) and size >= 1
            if size != "auto" and not whole:
                raise MisconfigurationException(
                    f"`ModelParallelStrategy({name}_parallel_size={size!r})`: 'auto' or a "
                    "whole number of at least 1 is accepted"
                )
        self._sizes = (1, 1)
        self.saves_parts = save_distributed_checkpoint

    def connect(self, devices: list[torch.device], num_nodes: int) -> None:
        """See `ParallelStrategy`.

        Raises:
            MisconfigurationException: The sizes do not make up the processes.
        """
        super().connect(devices, num_nodes)
        data, tensor = self._wanted
        if data == "auto":
            data = num_nodes if tensor == "auto" else self.world_size // tensor
        if tensor == "auto":
            tensor = self.world_size // data
        if data * tensor != self.world_size:
            raise MisconfigurationException(
                f"`ModelParallelStrategy(data_parallel_size={self._wanted[0]!r}, "
                f"tensor_parallel_size={self._wanted[1]!r})` on {self.world_size} "
                "process(es): their product must be that number. Leave one of them 'auto'."
            )
        self._sizes = (data, tensor)

    def setup_environment(self) -> None:
        """See `Strategy`."""
        super().setup_environment()
        self.data_group = self.device_mesh["data_parallel"].get_group()

    def _make_mesh(self) -> Any:
        from torch.distributed.device_mesh import init_device_mesh

        return init_device_mesh(
            self.root_device.type,
            self._sizes,
            mesh_dim_names=("data_parallel", "tensor_parallel"),
        )

    @property
    def data_world_size(self) -> int:
        """See `Strategy`."""
        return self._sizes[0]

    @property
    def data_rank(self) -> int:
        """See `Strategy`."""
        return self.global_rank // self._sizes[1]

    def place(self, module: nn.Module) -> None:
        """See `Strategy`.

        Raises:
            MisconfigurationException: `configure_model` has shared nothing out, or left
                parameters whose gradients nobody averages.
        """
        from lightgen_runtime.strategies.spread import is_spread

        self._module = module
        whole = {n: p for n, p in module.named_parameters() if not is_spread(p)}
        if len(whole) == len(list(module.parameters())):
            raise MisconfigurationException(
                f"`{type(module).__name__}.configure_model` has shared nothing out. There, "
                "apply torch's `parallelize_module` with "
                '`self.device_mesh["tensor_parallel"]`, or `fully_shard` with '
                "`self.device_mesh[\"data_parallel\"]`; or use strategy='fsdp', which "
                "needs no such method."
            )
        left = [name for name, p in whole.items() if p.requires_grad]
        if left and self._sizes[0] > 1:
            raise MisconfigurationException(
                f"`{type(module).__name__}.configure_model` has left parameters whole, "
                f"{left[:4]}, so that nobody averages their gradients over "
                f"{self._sizes[0]} different batches. Apply `fully_shard` to the modules "
                'that hold them, with `mesh=self.device_mesh["data_parallel"]`.'
            )
        self._make_real(module)
        self._note_placed(module)

    def reduce(
        self, tensor: Tensor, group: Any = None, reduce_op: Any = "mean"
    ) -> Tensor:
        """See `Strategy`; by default over processes that have different data."""
        if self._alone:
            return tensor
        return super().reduce(tensor, group or self.data_group, reduce_op)
