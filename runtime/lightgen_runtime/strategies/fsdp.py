"""Several processes, each with a part of every weight: torch's `fully_shard`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightgen_runtime.io.checkpoint_io import CheckpointIO
from lightgen_runtime.strategies.blocks import (
    blocks_of_classes,
    callable_parts,
)
from lightgen_runtime.strategies.parallel import DEFAULT_TIMEOUT
from lightgen_runtime.strategies.sharded import ShardedStrategy
from lightgen_runtime.utilities.exceptions import MisconfigurationException

STATE_DICT_TYPES = ("full", "sharded")
# What Lightning has besides, and how to get it.
_ELSEWHERE = {
    "sharding_strategy": (
        "reshard_after_forward=False is SHARD_GRAD_OP, device_mesh=(replicas, parts) is "
        "HYBRID_SHARD, strategy='ddp' is NO_SHARD"
    ),
    "activation_checkpointing": "use torch.utils.checkpoint in the layers",
    "activation_checkpointing_policy": "use torch.utils.checkpoint in the layers",
    "precision_plugin": "use Trainer(plugins=...)",
    "accelerator": "use Trainer(accelerator=...)",
    "cluster_environment": "use Trainer(plugins=...)",
}


class FSDPStrategy(ShardedStrategy):
    """One process a device, each with a part of every weight, gradient and state.

    Weights are put together block by block where they are needed, and are in parts again
    afterwards. Blocks are the layers of which a container holds several, or the classes
    in `auto_wrap_policy`; all else is a block of its own. Where `configure_model` has
    applied `torch.distributed.fsdp.fully_shard`, that is left as it is.

    In `bf16-mixed` and `16-mixed`, blocks are put together and computed in 16 bits, and
    their gradients are averaged in 32; blocks with batch normalization, and what belongs
    to no block, are as on one device.

    Args:
        parallel_devices: This node's devices, one a process; None takes the trainer's.
        checkpoint_io: How checkpoints are written.
        process_group_backend: See `DDPStrategy`.
        timeout: How long a process waits for the others before it gives up.
        cpu_offload: Whether parts of weights, gradients and states lie in host memory.
        mixed_precision: A `torch.distributed.fsdp.MixedPrecisionPolicy` for all blocks;
            None takes the one that fits the trainer's precision.
        auto_wrap_policy: Classes of layers that are blocks; None finds them.
        reshard_after_forward: Whether a block is in parts between forward and backward,
            or over how many processes then; None means that it is. What belongs to no
            block stays together.
        device_mesh: (replicas, parts): processes by groups that hold the whole model;
            None is one replica.
        state_dict_type: "full", one file that loads anywhere; or "sharded", each process
            writing its parts.

    Raises:
        MisconfigurationException: An argument is not accepted.

    Compat: this is `fully_shard` (FSDP2), where Lightning wraps in
    `FullyShardedDataParallel`.
    """

    def __init__(
        self,
        *,
        parallel_devices: list[torch.device] | None = None,
        checkpoint_io: CheckpointIO | None = None,
        process_group_backend: str | None = None,
        timeout: timedelta = DEFAULT_TIMEOUT,
        cpu_offload: bool = False,
        mixed_precision: Any = None,
        auto_wrap_policy: Iterable[type[nn.Module]] | None = None,
        reshard_after_forward: bool | int | None = None,
        device_mesh: tuple[int, int] | None = None,
        state_dict_type: str = "full",
        **elsewhere: Any,
    ) -> None:
        super().__init__(
            parallel_devices=parallel_devices,
            checkpoint_io=checkpoint_io,
            process_group_backend=process_group_backend,
            timeout=timeout,
        )
        _refuse(elsewhere)
        _check("cpu_offload", cpu_offload, isinstance(cpu_offload, bool), "a bool")
        if mixed_precision is not None:
            from torch.distributed.fsdp import MixedPrecisionPolicy

            is_policy = isinstance(mixed_precision, MixedPrecisionPolicy)
            wanted = "a torch.distributed.fsdp.MixedPrecisionPolicy"
            _check("mixed_precision", mixed_precision, is_policy, wanted)
        known = state_dict_type in STATE_DICT_TYPES
        _check("state_dict_type", state_dict_type, known, "'full' or 'sharded'")
        self._classes = _classes(auto_wrap_policy)
        self._offloads = cpu_offload
        self._policy = mixed_precision
        self._reshard = reshard_after_forward
        self._mesh_shape = device_mesh
        self.saves_parts = state_dict_type == "sharded"

    def setup_environment(self) -> None:
        """See `Strategy`."""
        if self._offloads and self.root_device.type == "cuda":
            # What lies in host memory travels too, when gradients are clipped or saved.
            both = "cpu:gloo,cuda:nccl"
            self.process_group_backend = self.process_group_backend or both
        super().setup_environment()

    def _make_mesh(self) -> Any:
        from torch.distributed.device_mesh import init_device_mesh

        shape = self._mesh_shape or (self.world_size,)
        names = ("replicas", "parts")[-len(shape) :]
        fits = torch.Size(shape).numel() == self.world_size
        wanted = f"sizes whose product is the {self.world_size} process(es)"
        _check("device_mesh", self._mesh_shape, fits, wanted)
        return init_device_mesh(
            self.root_device.type, tuple(shape), mesh_dim_names=names
        )

    @property
    def _device_of_parts(self) -> torch.device:
        return torch.device("cpu") if self._offloads else self.root_device

    def place(self, module: nn.Module) -> None:
        """See `Strategy`; each process then holds its part.

        Raises:
            MisconfigurationException: The module has no content yet, or weights that
                cannot be sharded.
        """
        from lightgen_runtime.strategies.spread import sharded_modules

        self._module = module
        by_user = bool(sharded_modules(module))
        if by_user:
            self._make_real(module)
        else:
            _refuse_meta(module)
            for block in self.blocks(module):
                self._shard(block)
        if not module.automatic_optimization:
            self._shard_parts(module)
        elif not by_user or self._is_left_apart(module):
            self._shard(module)
        self._make_real(module)
        self._note_placed(module)

    def blocks(self, module: nn.Module) -> list[nn.Module]:
        """See `ShardedStrategy`; the classes of `auto_wrap_policy`, if it is given."""
        if self._classes is None:
            return super().blocks(module)
        return blocks_of_classes(module, self._classes)

    def _shard_parts(self, module: nn.Module) -> None:
        """Shard each submodule that can be called by itself.

        In manual optimization a step computes gradients several times, each time by
        calling one of them.
        """
        for part in callable_parts(module):
            if _whole_parameters(part):
                self._shard(part)
        left = _whole_parameters(module)
        if left:
            raise MisconfigurationException(
                f"`{type(module).__name__}` has parameters of its own, {left[:4]}, and "
                "optimizes by hand: nothing says when FSDP is to put them together. Move "
                "them into a submodule that is called as a whole."
            )

    def _is_left_apart(self, module: nn.Module) -> bool:
        """Tell whether what the user has sharded needs something around it."""
        from lightgen_runtime.strategies.spread import sharded_modules

        sharded = sharded_modules(module)
        if module in sharded:
            return False
        outermost, *_ = sharded
        inside = {id(part) for part in outermost.modules()}
        apart = any(id(part) not in inside for part in sharded)
        return apart or bool(_whole_parameters(module))

    def _shard(self, block: nn.Module) -> None:
        from torch.distributed.fsdp import (
            CPUOffloadPolicy,
            OffloadPolicy,
            fully_shard,
        )

        from lightgen_runtime.strategies.spread import is_spread

        tensors = (*block.parameters(), *block.buffers())
        own = [tensor for tensor in tensors if not is_spread(tensor)]
        for tensor in own:
            tensor.data = tensor.data.to(self.root_device)
        self._send_from_rank_zero(own)
        pins = self.root_device.type == "cuda"
        fully_shard(
            block,
            mesh=self.device_mesh,
            mp_policy=self._policy_for(block),
            # The outermost one's forward may be a part of the step that needs its weights.
            reshard_after_forward=None if block is self._module else self._reshard,
            offload_policy=(
                CPUOffloadPolicy(pin_memory=pins) if self._offloads else OffloadPolicy()
            ),
        )

    def _policy_for(self, block: nn.Module) -> Any:
        from torch.distributed.fsdp import MixedPrecisionPolicy

        outermost = block is self._module
        policy, dtype = self._policy, self.compute_dtype
        if policy is None and dtype and not outermost and not _keeps_statistics(block):
            # Source: in 16 bits a mean over many processes would lose what is small.
            policy = MixedPrecisionPolicy(dtype, torch.float32)
        policy = policy or MixedPrecisionPolicy()
        # The outermost one's inputs are batches, targets included.
        return replace(policy, cast_forward_inputs=False) if outermost else policy


def _whole_parameters(module: nn.Module) -> list[str]:
    from lightgen_runtime.strategies.spread import is_spread

    return [n for n, p in module.named_parameters() if not is_spread(p)]


def _keeps_statistics(block: nn.Module) -> bool:
    """Tell whether weights meet buffers of 32 bits, which torch does not mix with 16."""
    return any(isinstance(part, _BatchNorm) for part in block.modules())


def _refuse_meta(module: nn.Module) -> None:
    empty = [name for name, p in module.named_parameters() if p.is_meta]
    if empty:
        raise MisconfigurationException(
            f"{type(module).__name__} has parameters on the meta device, {empty[:4]}, "
            "which have no content that could be shared out. Make them in "
            "`configure_model`: on a real device; or on the meta device, there also "
            "applying `torch.distributed.fsdp.fully_shard` to the layers, which get their "
            "content part by part from `reset_parameters`."
        )


def _classes(policy: Any) -> tuple[type[nn.Module], ...] | None:
    if policy is None:
        return None
    classes = tuple(policy) if isinstance(policy, Iterable) else ()
    are_modules = bool(classes) and all(
        isinstance(each, type) and issubclass(each, nn.Module) for each in classes
    )
    _check("auto_wrap_policy", policy, are_modules, "a set of module classes")
    return classes


def _check(name: str, value: Any, accepted: bool, wanted: str) -> None:
    if not accepted:
        raise MisconfigurationException(
            f"`FSDPStrategy({name}={value!r})`: accepted is {wanted}"
        )


def _refuse(arguments: dict[str, Any]) -> None:
    for name in arguments:
        how = _ELSEWHERE.get(name)
        raise MisconfigurationException(
            f"`FSDPStrategy({name}=...)` is not an argument here"
            + (f": {how}." if how else ", where torch's `fully_shard` does the work.")
        )
