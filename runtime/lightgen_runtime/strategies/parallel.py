"""Several processes that work as one: who they are, and how they talk."""

from __future__ import annotations

import atexit
import gc
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lightgen_runtime.io.checkpoint_io import CheckpointIO
from lightgen_runtime.strategies.base import Strategy
from lightgen_runtime.strategies.elastic import store_of_this_start
from lightgen_runtime.strategies.environments.detection import choose_environment
from lightgen_runtime.strategies.environments.torchelastic import (
    TorchElasticEnvironment,
)
from lightgen_runtime.strategies.launch import (
    join_store,
    note_failure,
    note_watch,
    own_store,
    start_processes,
    store_at,
)
from lightgen_runtime.strategies.ranks import Ranks, ranks_from_environment, ranks_in
from lightgen_runtime.strategies.stop_votes import StopVotes
from lightgen_runtime.strategies.sync_batchnorm import synced
from lightgen_runtime.strategies.watch import Watch, watching
from lightgen_runtime.utilities.call_site import function_site
from lightgen_runtime.utilities.exceptions import (
    CheckpointWriteError,
    MisconfigurationException,
    OtherProcessError,
)
from lightgen_runtime.utilities.nearest import did_you_mean
from lightgen_runtime.utilities.rank_zero import print_to_stderr, rank_zero_only
from lightgen_runtime.utilities.seed import reset_seed
from lightgen_runtime.utilities.workers import own_processors

# Source: torch's default for every backend but nccl.
DEFAULT_TIMEOUT = timedelta(minutes=30)
_PATIENCE_S = 30.0


class ParallelStrategy(Strategy):
    """Several processes, one a device.

    Processes come from a launcher, such as torchrun or SLURM; without one, rank 0 starts
    the others by running the program again. What each holds of the module is a subclass's business.

    Args:
        parallel_devices: This node's devices, one a process; None takes the trainer's.
        checkpoint_io: How checkpoints are written.
        process_group_backend: "gloo", "nccl" or another of torch's; None takes the one
            that belongs to the device.
        timeout: How long a process waits for the others before it gives up.
    """

    def __init__(
        self,
        *,
        parallel_devices: list[torch.device] | None = None,
        checkpoint_io: CheckpointIO | None = None,
        process_group_backend: str | None = None,
        timeout: timedelta = DEFAULT_TIMEOUT,
    ) -> None:
        super().__init__(checkpoint_io)
        self.parallel_devices = parallel_devices
        self.process_group_backend = process_group_backend
        self.timeout = timeout
        self._ranks = ranks_from_environment() or Ranks()
        self._alone = True
        self._module: Any = None
        self._watch: Watch | None = None
        self._holds_store_for: Iterable[int] = ()
        self._restore_layers: Callable[[], None] | None = None

    def connect(self, devices: list[torch.device], num_nodes: int) -> None:
        """Take the trainer's devices, and find out which process this is.

        Raises:
            MisconfigurationException: As many processes have not been started.
        """
        self.parallel_devices = self.parallel_devices or devices
        here = len(self.parallel_devices)
        self.cluster_environment = choose_environment(self.cluster_environment)
        self._ranks = ranks_in(self.cluster_environment, here, num_nodes)

    @property
    def root_device(self) -> torch.device:
        """See `Strategy`."""
        devices = self.parallel_devices or [torch.device("cpu")]
        return devices[self._ranks.local_rank]

    @property
    def ranks(self) -> Ranks:
        """Which of all processes this one is."""
        return self._ranks

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
        if not dist.is_initialized():
            with self._saying_if_alone():
                self._join(device)
        elif dist.get_world_size() != self.world_size:
            raise MisconfigurationException(
                f"this `Trainer` wants {self.world_size} process(es), and this program "
                f"runs in {dist.get_world_size()}. Use the same number of devices."
            )
        self._alone = False
        note_failure(False)
        if self.world_size > 1:
            self._watch = watching(self.global_rank, self._holds_store_for)
            self._watch.begin_run(self._training_step_site())
            note_watch(self._watch)
        rank_zero_only.rank = self.global_rank
        if device.type != "cuda":
            self._share_processors()

    def _join(self, device: torch.device) -> None:
        where: dict[str, Any] = {"init_method": "env://"}  # torchrun's
        if (store := self._store()) is not None:
            where = {"store": store}
        if device.type == "cuda":
            where["device_id"] = device
        # Imported later, by torch itself, its functions would have this group among their
        # defaults: it would outlive all, and its threads abort the interpreter's end.
        import torch.distributed.nn.functional  # noqa: F401

        default = dist.get_default_backend_for_device(device)
        self.process_group_backend = self.process_group_backend or default
        try:
            dist.init_process_group(
                self.process_group_backend,
                rank=self.global_rank,
                world_size=self.world_size,
                timeout=self.timeout,
                **where,
            )
        except dist.DistBackendError as error:
            if "Duplicate GPU" not in str(error):  # Source: NCCL's words
                raise
            raise MisconfigurationException(
                f"{self._ranks.local_world_size} processes have been started on this node, "
                f"and some of them see the same card as their `{device}`. Start one process "
                "a card, or let the launcher give each its own (for example `srun "
                "--gpus-per-task=1`)."
            ) from error
        atexit.register(self._leave)
        # Random numbers from here on are every process's, whatever rank 0 did before.
        reset_seed()

    def _share_processors(self) -> None:
        """Compute with as many threads as this node has processors for each process.

        Collective. A launcher may have bound each process to some of its own.
        """
        found = self.gather_objects((self.node_rank, own_processors()))
        here = set().union(*(own for node, own in found if node == self.node_rank))
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, len(here) // self._ranks.local_world_size))

    @contextmanager
    def _saying_if_alone(self) -> Iterator[None]:
        """Say so if the others do not come for a while: the time-out is a long one."""
        environment = choose_environment(self.cluster_environment)

        def say() -> None:
            print_to_stderr(
                f"Process {self.global_rank} of {self.world_size} still waits for the "
                f"others to start{environment.quoted()}."
            )

        timer = threading.Timer(_PATIENCE_S, say)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _store(self) -> Any:
        """Return where the processes meet; None where torch is to find it out."""
        environment = choose_environment(self.cluster_environment)
        if not environment.creates_processes_externally:
            return start_processes(self._ranks, self.make_store)
        if (store := join_store(self.timeout)) is not None:
            return store
        if isinstance(environment, TorchElasticEnvironment):
            ranks = self._ranks
            return store_of_this_start(
                ranks.global_rank, ranks.world_size, self.timeout
            )
        return self._store_of_environment()

    def make_store(self) -> Any:
        """Return a new store, for processes that this one starts to meet at."""
        if self._ranks.world_size == self._ranks.local_world_size:
            return own_store()
        return self._store_of_environment()

    def _store_of_environment(self) -> Any:
        environment = choose_environment(self.cluster_environment)
        if self.global_rank == 0:
            self._holds_store_for = range(1, self.world_size)
        return store_at(environment, self._ranks, self.timeout)

    def _leave(self) -> None:
        if dist.is_initialized() and not (self._watch and self._watch.is_ending):
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

    def cause_of(self, error: BaseException) -> BaseException:
        """See `Strategy`; tell the other processes of an error of this one."""
        if self._watch is None or self._alone:
            return error
        return self._watch.cause_of(error)

    def on_exception(self, error: BaseException) -> None:
        """See `Strategy`."""
        self._alone = True
        note_failure(True, is_consequence=isinstance(error, OtherProcessError))

    @property
    def is_parted(self) -> bool:
        """See `Strategy`."""
        return self._alone and self.world_size > 1

    def check_can_save(self, filepath: str | Path) -> None:
        """See `Strategy`."""
        needs_all = self.spreads_model or self.checkpoint_io.writes_from_all_processes
        if self.is_parted and needs_all:
            raise CheckpointWriteError(
                filepath,
                "an exception has parted the processes, all of which it needs",
                "Go on from an earlier checkpoint.",
            )

    def teardown(self) -> None:
        """Release the module; the processes stay together for the next run."""
        self._module = None
        if self._restore_layers is not None:
            self._restore_layers()
            self._restore_layers = None
        if self._watch is not None and self._alone:
            self._watch.note_torn_down()

    def sync_layers(self, module: nn.Module) -> None:
        """See `Strategy`."""
        if self.sync_batchnorm and self.world_size > 1:
            self._restore_layers = synced(module)

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

    def _others_wait(self) -> MisconfigurationException:
        """Return the error for a training step that returned no loss."""
        return MisconfigurationException(
            f"`training_step` at {self._training_step_site()} returned None in process "
            f"{self.global_rank} of {self.world_size}; the others wait for its gradients. "
            "Return a loss in every process, for example `0.0 * loss` to skip a batch."
        )

    def _training_step_site(self) -> str:
        return function_site(getattr(self.lightning_module, "training_step", None))

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
        group = group or self.data_group
        if self._alone or group is None:
            return None
        if dist.get_rank(group) < 0:
            return (self.global_rank,)
        return tuple(dist.get_process_group_ranks(group))

    def gather_objects(self, value: Any, group: Any = None) -> list[Any]:
        """See `Strategy`."""
        if self._alone:
            return [value]
        found: list[Any] = [None] * dist.get_world_size(group)
        dist.all_gather_object(found, value, group=group)
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
