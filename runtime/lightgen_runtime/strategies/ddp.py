"""Several processes, a whole copy of the model in each: DistributedDataParallel."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lightgen_runtime.io.checkpoint_io import CheckpointIO
from lightgen_runtime.strategies.environments.cluster import ClusterEnvironment
from lightgen_runtime.strategies.multiprocess import check_start_method
from lightgen_runtime.strategies.parallel import DEFAULT_TIMEOUT, ParallelStrategy
from lightgen_runtime.utilities.exceptions import MisconfigurationException, add_note
from lightgen_runtime.utilities.nearest import did_you_mean
from lightgen_runtime.utilities.rank_zero import rank_zero_warn

_NOT_OURS_TO_SET = {"self", "module", "device_ids", "output_device", "process_group"}
_OPTIONS = [
    name
    for name in inspect.signature(DistributedDataParallel.__init__).parameters
    if name not in _NOT_OURS_TO_SET
]


class DDPStrategy(ParallelStrategy):
    """One process a device, each with the whole model; gradients are averaged.

    Processes come from a launcher, such as torchrun or SLURM; without one, rank 0 starts
    the others by running the program again.

    Args:
        parallel_devices: This node's devices, one a process; None takes the trainer's.
        checkpoint_io: How checkpoints are written.
        process_group_backend: "gloo", "nccl" or another of torch's; None takes the one
            that belongs to the device.
        timeout: How long a process waits for the others before it gives up.
        cluster_environment: Who has started the processes; None finds out.
        start_method: How they are started if nobody has: "popen", by running the program
            again; "spawn", "fork" or "forkserver", for each run, whose results come back.
        ddp_comm_state: First argument of `ddp_comm_hook`.
        ddp_comm_hook: How gradients travel, see `torch.distributed.algorithms`.
        ddp_comm_wrapper: Called with the hook; returns what takes its place.
        **options: Passed on to `DistributedDataParallel`: `find_unused_parameters`,
            `gradient_as_bucket_view`, `static_graph`, `bucket_cap_mb` and others.

    Raises:
        MisconfigurationException: DistributedDataParallel has no such option, or there is
            no such way to start processes.

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
        cluster_environment: ClusterEnvironment | None = None,
        start_method: str = "popen",
        ddp_comm_state: object = None,
        ddp_comm_hook: Callable[..., Any] | None = None,
        ddp_comm_wrapper: Callable[..., Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            parallel_devices=parallel_devices,
            checkpoint_io=checkpoint_io,
            process_group_backend=process_group_backend,
            timeout=timeout,
        )
        if start_method != "popen":
            check_start_method(start_method)
        self.start_method = start_method
        self.cluster_environment = cluster_environment
        for name in options:
            if name not in _OPTIONS:
                raise MisconfigurationException(
                    f"`{type(self).__name__}({name}=...)` is unknown; beside its own "
                    f"arguments it takes those of DistributedDataParallel: "
                    f"{', '.join(_OPTIONS)}.{did_you_mean(name, _OPTIONS)}"
                )
        self._options = options
        self._comm_state = ddp_comm_state
        self._comm_hook = ddp_comm_hook
        if ddp_comm_hook is not None and ddp_comm_wrapper is not None:
            self._comm_hook = ddp_comm_wrapper(ddp_comm_hook)
        self._step: Callable[..., Any] | None = None  # the one that trains
        self._find_unused = False
        self._ddp: DistributedDataParallel | None = None
        self._explored: DistributedDataParallel | None = None  # if its graph is static
        # Which parameters the reducer knows, and which it does not.
        self._trained: list[nn.Parameter] = []
        self._frozen: list[nn.Parameter] = []

    def on_exception(self, error: BaseException) -> None:
        """See `Strategy`; say what to do about parameters that got no gradient."""
        super().on_exception(error)
        self._note_unused(error)

    def _note_unused(self, error: BaseException) -> None:
        found = re.search(r"did not receive grad for rank \d+: ([\d ]+)", str(error))
        if found is None or self._module is None:
            return
        numbers = {id(parameter): n for n, parameter in enumerate(self._trained)}
        wanted = {int(number) for number in found[1].split()}
        names = [
            name
            for name, parameter in self._module.named_parameters()
            if numbers.get(id(parameter)) in wanted
        ]
        add_note(
            error,
            f"These parameters take no part in the loss: {', '.join(names)}. If that is "
            "meant, use `Trainer(strategy='ddp_find_unused_parameters_true')`; else "
            "freeze or remove them.",
        )

    def teardown(self) -> None:
        """Release the module; the processes stay together for the next run.

        Raises:
            RuntimeError: Parameters took no part in the last loss, so that its gradients
                were not exchanged. Any other step is followed by one that tells.
        """
        try:
            if self._ddp is not None and not self._alone:
                self._ddp._check_reducer_finalized()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            self._note_unused(error)
            raise
        finally:
            super().teardown()
            self._ddp = self._explored = self._step = None
            self._find_unused = False
            self._trained, self._frozen = [], []
            self.arm_reducer = None

    # ---- the module ----

    def place(self, module: nn.Module) -> None:
        """See `Strategy`."""
        module.to(self.root_device)
        self._module = module
        self._send_from_rank_zero([*module.parameters(), *module.buffers()])

    def sync_buffers(self) -> None:
        """See `Strategy`; as DistributedDataParallel does before each training step."""
        if self._step is not None and self._options.get("broadcast_buffers", True):
            self._send_from_rank_zero(list(self._module.buffers()))

    def bind(
        self, step: Callable[..., Any], *, trains: bool = False
    ) -> Callable[..., Any]:
        """See `Strategy`.

        An evaluating step stays as it is: processes may evaluate different numbers of
        batches, so nothing in it may wait for another.
        """
        if not trains:
            return step
        self._step = step
        if not self._module.automatic_optimization:
            return self._bind_manual(step)
        self._wrap()

        def synced(*args: Any) -> Any:
            if self._frozen:
                self._note_thawed()
            if self._ddp is None:  # nothing is trained yet
                return step(*args)
            output = self._ddp(*args)
            if output is None:
                raise self._others_wait()
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
        self._find_unused = isinstance(self._module.optimizers(), list)
        self._wrap()
        self.arm_reducer = self._arm

        def synced(*args: Any) -> Any:
            if self._frozen:
                self._note_thawed()
            self.sync_buffers()
            return step(*args)

        return synced

    def _arm(self, loss: Tensor) -> None:
        ddp = self._ddp
        if ddp is None or not ddp.require_backward_grad_sync:
            return
        ddp.reducer._rebuild_buckets()
        ddp.reducer.prepare_for_backward([loss] if ddp.find_unused_parameters else [])

    def _wrap(self) -> None:
        """Make a reducer for the parameters that require gradients, if any do."""
        assert self._step is not None
        self._trained, self._frozen = self._parted_parameters()
        self._ddp = None
        if not self._trained:
            return
        options = {"find_unused_parameters": self._find_unused, **self._options}
        # Without device ids, inputs are passed on as they are: they have been placed.
        self._ddp = DistributedDataParallel(_Step(self._module, self._step), **options)
        if self._comm_hook is not None:
            self._register(self._comm_hook, self._ddp)

    def _parted_parameters(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return those that require gradients, and those that do not."""
        parameters = list(self._module.parameters())
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        return trained, [p for p in parameters if not p.requires_grad]

    def _note_thawed(self) -> None:
        for parameter in self._frozen:
            if parameter.requires_grad:
                return self._wrap()

    def _register(self, hook: Callable[..., Any], ddp: DistributedDataParallel) -> None:
        try:
            ddp.register_comm_hook(self._comm_state, hook)
        except TypeError as error:
            if self.root_device.type != "cpu":
                raise
            # One that torch has for GPUs only, in a program that is tried out on CPUs.
            rank_zero_warn(
                f"gradients travel without `DDPStrategy(ddp_comm_hook=...)`: {error}"
            )

    def windowed(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """See `Strategy`."""

        def in_window(
            batch: Any, batch_idx: int, opens: bool, closes: bool, divisor: int
        ) -> Any:
            if closes:
                return step(batch, batch_idx, opens, closes, divisor)
            with self.no_sync():
                return step(batch, batch_idx, opens, closes, divisor)

        return in_window

    def no_sync(self) -> AbstractContextManager[None]:
        """See `Strategy`."""
        if self._ddp is None:
            return nullcontext()
        if self._ddp.static_graph and self._explored is not self._ddp:
            # The graph is recorded in the first backward, which has to be a synced one.
            # The mean of what are means already is the same.
            self._explored = self._ddp
            return nullcontext()
        return self._ddp.no_sync()

    def note_trainable(self) -> None:
        """See `Strategy`: the reducer knows only parameters that required gradients."""
        now, _ = self._parted_parameters()
        known = {id(parameter) for parameter in self._trained}
        if self._step is not None and {id(parameter) for parameter in now} != known:
            self._wrap()


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
