"""Several processes, a whole copy of the model in each: DistributedDataParallel."""

from __future__ import annotations

import atexit
import gc
import inspect
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lightgen_runtime.io.checkpoint_io import CheckpointIO
from lightgen_runtime.strategies.base import Strategy
from lightgen_runtime.strategies.launch import (
    join_store,
    note_failure,
    start_processes,
)
from lightgen_runtime.strategies.ranks import Ranks, ranks_from_environment
from lightgen_runtime.strategies.stop_votes import StopVotes
from lightgen_runtime.utilities.exceptions import MisconfigurationException, add_note
from lightgen_runtime.utilities.nearest import did_you_mean
from lightgen_runtime.utilities.rank_zero import rank_zero_only
from lightgen_runtime.utilities.seed import reset_seed

# Source: torch's default for every backend but nccl.
DEFAULT_TIMEOUT = timedelta(minutes=30)
_NOT_OURS_TO_SET = {"self", "module", "device_ids", "output_device", "process_group"}
_OPTIONS = [
    name
    for name in inspect.signature(DistributedDataParallel.__init__).parameters
    if name not in _NOT_OURS_TO_SET
]


class DDPStrategy(Strategy):
    """One process a device, each with the whole model; gradients are averaged.

    Processes come from torchrun; without it, rank 0 starts the others by running the
    program again.

    Args:
        parallel_devices: This node's devices, one a process; None takes the trainer's.
        checkpoint_io: How checkpoints are written.
        process_group_backend: "gloo", "nccl" or another of torch's; None takes the one
            that belongs to the device.
        timeout: How long a process waits for the others before it gives up.
        ddp_comm_state: First argument of `ddp_comm_hook`.
        ddp_comm_hook: How gradients travel, see `torch.distributed.algorithms`.
        ddp_comm_wrapper: Called with the hook; returns what takes its place.
        **options: Passed on to `DistributedDataParallel`: `find_unused_parameters`,
            `gradient_as_bucket_view`, `static_graph`, `bucket_cap_mb` and others.

    Raises:
        MisconfigurationException: DistributedDataParallel has no such option.

    Compat: `find_unused_parameters` is on by default in manual optimization with several
    optimizers, where each backward reaches a part of the parameters only.
    """

    def __init__(
        self,
        *,
        parallel_devices: list[torch.device] | None = None,
        checkpoint_io: CheckpointIO | None = None,
        process_group_backend: str | None = None,
        timeout: timedelta = DEFAULT_TIMEOUT,
        ddp_comm_state: object = None,
        ddp_comm_hook: Callable[..., Any] | None = None,
        ddp_comm_wrapper: Callable[..., Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(checkpoint_io)
        for name in options:
            if name not in _OPTIONS:
                raise MisconfigurationException(
                    f"`{type(self).__name__}({name}=...)` is unknown; beside its own "
                    f"arguments it takes those of DistributedDataParallel: "
                    f"{', '.join(_OPTIONS)}.{did_you_mean(name, _OPTIONS)}"
                )
        self.parallel_devices = parallel_devices
        self.process_group_backend = process_group_backend
        self.timeout = timeout
        self._options = options
        self._comm_state = ddp_comm_state
        self._comm_hook = ddp_comm_hook
        if ddp_comm_hook is not None and ddp_comm_wrapper is not None:
            self._comm_hook = ddp_comm_wrapper(ddp_comm_hook)
        self._ranks = ranks_from_environment() or Ranks()
        self._alone = True
        self._module: Any = None
        self._ddp: DistributedDataParallel | None = None
        self._trained: list[nn.Parameter] = []

    def connect(self, devices: list[torch.device], num_nodes: int) -> None:
        """Take the trainer's devices, and find out which process this is.

        Raises:
            MisconfigurationException: As many processes have not been started.
        """
        self.parallel_devices = self.parallel_devices or devices
        here = len(self.parallel_devices)
        wanted = here * num_nodes
        launched = ranks_from_environment()
        if launched is None and num_nodes > 1:
            raise MisconfigurationException(
                f"`Trainer(num_nodes={num_nodes})`: run the program on every node with "
                f"`torchrun --nnodes {num_nodes} --nproc-per-node {here} "
                "--rdzv-backend c10d --rdzv-endpoint HOST:PORT PROGRAM`"
            )
        if launched is not None and launched.world_size != wanted:
            raise MisconfigurationException(
                f"`Trainer(devices=..., num_nodes={num_nodes})` makes {here} x {num_nodes} "
                f"= {wanted} process(es), and {launched.world_size} have been started "
                f"({launched.local_world_size} a node). Use the same numbers in both "
                "places, or devices='auto'."
            )
        self._ranks = launched or Ranks(world_size=wanted, local_world_size=here)

    @property
    def root_device(self) -> torch.device:
        """See `Strategy`."""
        devices = self.parallel_devices or [torch.device("cpu")]
        return devices[self._ranks.local_rank]

    @property
    def world_size(self) -> int:
        """See `Strategy`."""
        return self._ranks.world_size

    @property
    def global_rank(self) -> int:
        """See `Strategy`."""
        return self._ranks.global_rank

    @property
    def local_rank(self) -> int:
        """See `Strategy`."""
        return self._ranks.local_rank

    @property
    def node_rank(self) -> int:
        """See `Strategy`."""
        return self._ranks.node_rank

    # ---- processes ----

    def setup_environment(self) -> None:
        """Start the other processes if nobody has, and join them."""
        device = self.root_device
        if device.type == "cuda":
            torch.cuda.set_device(device)
        elif "OMP_NUM_THREADS" not in os.environ:
            share = (os.cpu_count() or 1) // self._ranks.local_world_size
            torch.set_num_threads(max(1, share))
        if not dist.is_initialized():
            self._join(device)
        elif dist.get_world_size() != self.world_size:
            raise MisconfigurationException(
                f"this `Trainer` wants {self.world_size} process(es), and this program "
                f"runs in {dist.get_world_size()}. Use the same number of devices."
            )
        self._alone = False
        note_failure(False)
        rank_zero_only.rank = self.global_rank

    def _join(self, device: torch.device) -> None:
        where: dict[str, Any] = {"init_method": "env://"}  # torchrun's
        if ranks_from_environment() is None:
            where = {"store": start_processes(self.world_size)}
        elif (store := join_store(self.timeout)) is not None:
            where = {"store": store}
        if device.type == "cuda":
            where["device_id"] = device
        dist.init_process_group(
            self.process_group_backend or dist.get_default_backend_for_device(device),
            rank=self.global_rank,
            world_size=self.world_size,
            timeout=self.timeout,
            **where,
        )
        atexit.register(self._leave)
        # Random numbers from here on are every process's, whatever rank 0 did before.
        reset_seed()

    def _leave(self) -> None:
        if dist.is_initialized() and not self._alone:
            # A reducer that is left over would keep the group's threads running into the
            # end of the interpreter, which they do not survive.
            gc.collect()
            dist.destroy_process_group()

    def stop_votes(self) -> StopVotes | None:
        """See `Strategy`."""
        if self._alone or self.world_size == 1:
            return None
        store: Any = dist.distributed_c10d._get_default_store()
        return StopVotes(store.clone(), self.global_rank, self.world_size)

    def on_exception(self, error: BaseException) -> None:
        """See `Strategy`; say what to do about parameters that got no gradient."""
        self._alone = True
        note_failure(True)
        if "finished reduction in the prior iteration" in str(error):
            add_note(
                error,
                "Some parameters take no part in the loss. If that is meant, use "
                "`Trainer(strategy='ddp_find_unused_parameters_true')`; else freeze or "
                "remove them.",
            )

    def teardown(self) -> None:
        """Release the module; the processes stay together for the next run."""
        self._ddp = None
        self._module = None
        self._trained = []
        self.arm_reducer = None

    # ---- the module ----

    def place(self, module: nn.Module) -> None:
        """See `Strategy`."""
        module.to(self.root_device)
        self._module = module
        self._send_from_rank_zero([*module.parameters(), *module.buffers()])

    def sync_buffers(self) -> None:
        """See `Strategy`; as DistributedDataParallel does before each training step."""
        if self._ddp is not None and self._options.get("broadcast_buffers", True):
            self._send_from_rank_zero(list(self._module.buffers()))

    @torch.no_grad()
    def _send_from_rank_zero(self, tensors: list[Tensor]) -> None:
        if self._alone or self.world_size == 1:
            return
        for tensor in tensors:
            if not tensor.numel():
                continue
            # As bytes: not every backend knows every dtype.
            content = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
            dist.broadcast(content, 0)
            if content.data_ptr() != tensor.data_ptr():
                tensor.copy_(content.view(tensor.dtype).view(tensor.shape))

    def bind(
        self, step: Callable[..., Any], *, trains: bool = False
    ) -> Callable[..., Any]:
        """See `Strategy`.

        An evaluating step stays as it is: processes may evaluate different numbers of
        batches, so nothing in it may wait for another.
        """
        trained = [p for p in self._module.parameters() if p.requires_grad]
        if not trains or not trained:
            return step
        self._trained = trained
        if not self._module.automatic_optimization:
            return self._bind_manual(step)
        self._ddp = self._wrapped(step, find_unused=False)

        def synced(*args: Any) -> Any:
            output = self._ddp(*args)  # type: ignore[misc]
            if output is None:
                raise MisconfigurationException(
                    f"`training_step` returned None in process {self.global_rank} of "
                    f"{self.world_size}; the others wait for its gradients. Return a loss "
                    "in every process, for example `0.0 * loss` to skip a batch."
                )
            return output

        return synced

    def _bind_manual(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """Return the step of manual optimization, each of whose losses arms the reducer.

        Its backwards happen inside the step, where the reducer cannot yet be armed by the
        forward of DistributedDataParallel.
        """
        if self._options.get("static_graph"):
            raise MisconfigurationException(
                f"`{type(self).__name__}(static_graph=True)` with manual optimization: "
                "which parameters a backward reaches depends on the loss. Remove it."
            )
        several = isinstance(self._module.optimizers(), list)
        self._ddp = self._wrapped(step, find_unused=several)
        self.arm_reducer = self._arm

        def synced(*args: Any) -> Any:
            self.sync_buffers()
            return step(*args)

        return synced

    def _arm(self, loss: Tensor) -> None:
        ddp = self._ddp
        if ddp is None or not ddp.require_backward_grad_sync:
            return
        ddp.reducer._rebuild_buckets()
        ddp.reducer.prepare_for_backward([loss] if ddp.find_unused_parameters else [])

    def _wrapped(
        self, step: Callable[..., Any], find_unused: bool
    ) -> DistributedDataParallel:
        options = {"find_unused_parameters": find_unused, **self._options}
        # Without device ids, inputs are passed on as they are: they have been placed.
        ddp = DistributedDataParallel(_Step(self._module, step), **options)
        if self._comm_hook is not None:
            ddp.register_comm_hook(self._comm_state, self._comm_hook)
        return ddp

    def windowed(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """See `Strategy`."""

        def in_window(
            batch: Any, batch_idx: int, opens: bool, closes: bool, divisor: int
        ) -> Any:
            with nullcontext() if closes else self.no_sync():
                return step(batch, batch_idx, opens, closes, divisor)

        return in_window

    def no_sync(self) -> AbstractContextManager[None]:
        """See `Strategy`."""
        if self._ddp is None:
            return nullcontext()
        return self._ddp.no_sync()

    def note_trainable(self) -> None:
        """See `Strategy`: the reducer knows only parameters that required gradients."""
        if self._ddp is None:
            return
        now = [p for p in self._module.parameters() if p.requires_grad]
        known = {id(parameter) for parameter in self._trained}
        if now and {id(parameter) for parameter in now} != known:
            self._trained = now
            self._ddp = self._wrapped(
                self._ddp.module.step, self._ddp.find_unused_parameters
            )

    # ---- communication ----

    def reduce(
        self, tensor: Tensor, group: Any = None, reduce_op: Any = "mean"
    ) -> Tensor:
        """See `Strategy`."""
        if self._alone or not isinstance(tensor, Tensor):
            return tensor
        name = reduce_op.lower() if isinstance(reduce_op, str) else reduce_op
        mean = name in ("mean", "avg", dist.ReduceOp.AVG)
        operation = dist.ReduceOp.SUM if mean else name
        if isinstance(operation, str):
            operation = _operation(operation)
        result = tensor.detach().to(self.root_device, copy=True).contiguous()
        dist.all_reduce(result, op=operation, group=group)
        return result / dist.get_world_size(group) if mean else result

    def broadcast(self, value: Any, src: int = 0) -> Any:
        """See `Strategy`."""
        if self._alone:
            return value
        values = [value]
        dist.broadcast_object_list(values, src, device=self.root_device)
        return values[0]

    def barrier(self, name: str | None = None) -> None:
        """See `Strategy`."""
        if not self._alone:
            dist.barrier()

    def all_gather(
        self, tensor: Tensor, group: Any = None, sync_grads: bool = False
    ) -> Tensor:
        """See `Strategy`."""
        if self._alone or self.world_size == 1:
            return tensor
        tensor = tensor.to(self.root_device).contiguous()
        if sync_grads:
            from torch.distributed.nn.functional import all_gather

            # With its default group, not with None: that is how it is declared.
            where = dist.group.WORLD if group is None else group
            parts = all_gather(tensor, where)  # type: ignore[no-untyped-call]
            return torch.stack(list(parts))
        count = dist.get_world_size(group)
        found = [torch.empty_like(tensor) for _ in range(count)]
        dist.all_gather(found, tensor.detach(), group=group)
        return torch.stack(found)

    def ranks_of(self, group: Any) -> tuple[int, ...] | None:
        """See `Strategy`; a process outside of the group is on its own."""
        if self._alone or group is None:
            return None
        if dist.get_rank(group) < 0:
            return (self.global_rank,)
        return tuple(dist.get_process_group_ranks(group))

    def gather_objects(self, value: Any) -> list[Any]:
        """See `Strategy`."""
        if self._alone:
            return [value]
        found: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(found, value)
        return found

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        """See `Strategy`."""
        if self._alone:
            return decision
        answer = torch.tensor(int(decision), device=self.root_device)
        dist.all_reduce(answer, op=dist.ReduceOp.MIN if all else dist.ReduceOp.MAX)
        return bool(answer)


def _operation(name: str) -> Any:
    known = [each.lower() for each in dist.ReduceOp.RedOpType.__members__]
    if name not in known:
        raise MisconfigurationException(
            f"`reduce(..., reduce_op={name!r})`: accepted are 'mean' and {known}."
            f"{did_you_mean(name, ['mean', *known])}"
        )
    return getattr(dist.ReduceOp, name.upper())


class _Step(nn.Module):
    """What DistributedDataParallel wraps: the module, with a step of it as forward.

    The user's module itself is never wrapped: its names and its `state_dict` stay.
    """

    def __init__(self, module: nn.Module, step: Callable[..., Any]) -> None:
        super().__init__()
        self.module = module
        self.step = step

    def forward(self, *args: Any) -> Any:
        """Run the step."""
        return self.step(*args)
