"""The questions that a run asks about its processes and devices."""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightgen_runtime.io.async_checkpoint_io import AsyncCheckpointIO
from lightgen_runtime.io.checkpoint_io import CheckpointIO, TorchCheckpointIO
from lightgen_runtime.strategies.environments.cluster import ClusterEnvironment
from lightgen_runtime.strategies.stop_votes import StopVotes

T = TypeVar("T")


class Strategy(ABC):
    """Placement, communication and file access of one run.

    Knows nothing of hooks, loggers or epochs.

    Attributes:
        arm_reducer: In manual optimization called with each loss before its backward;
            None where there is nothing to prepare.
        spreads_model: Whether one model lies over several processes, so that each step,
            evaluating ones too, needs all of them.
        data_group: The processes that have different data, if those are not all.
        sync_batchnorm: Whether a fit normalizes over the batches of all processes.
        cluster_environment: Who has started this process, if that was asked for.
        start_method: How processes are started that nobody else has started: "popen", by
            running the program again; "fork", "spawn" or "forkserver", for each run.
        compute_dtype: What layers are to compute in, if not in their parameters' type;
            the trainer sets it.
        clip_norm: Limits the norm of all gradients of some parameters together.
        clip_value: Limits each element of their gradients.
    """

    arm_reducer: Callable[[Tensor], None] | None = None
    spreads_model = False
    data_group: Any = None
    sync_batchnorm = False
    cluster_environment: ClusterEnvironment | None = None
    start_method = "popen"
    compute_dtype: torch.dtype | None = None
    clip_norm: Callable[..., Any] = staticmethod(torch.nn.utils.clip_grad_norm_)
    clip_value: Callable[..., Any] = staticmethod(torch.nn.utils.clip_grad_value_)

    def __init__(self, checkpoint_io: CheckpointIO | None = None) -> None:
        self.checkpoint_io = checkpoint_io or TorchCheckpointIO()

    # The module of the current or last run, for code that asks here; the trainer sets it.
    lightning_module: nn.Module | None = None

    @property
    def model(self) -> nn.Module | None:
        """The module of the current or last run."""
        return self.lightning_module

    @property
    @abstractmethod
    def root_device(self) -> torch.device:
        """The device of this process."""

    @property
    @abstractmethod
    def world_size(self) -> int:
        """Number of processes."""

    @property
    @abstractmethod
    def global_rank(self) -> int:
        """Number of this process among all, from 0."""

    @property
    @abstractmethod
    def local_rank(self) -> int:
        """Number of this process on its node, from 0."""

    @property
    @abstractmethod
    def node_rank(self) -> int:
        """Number of this node, from 0."""

    @property
    def data_world_size(self) -> int:
        """Number of parts that the data are shared out in."""
        return self.world_size

    @property
    def data_rank(self) -> int:
        """Number of this process's part of the data, from 0."""
        return self.global_rank

    @property
    def is_global_zero(self) -> bool:
        """Whether this process writes files and talks."""
        return self.global_rank == 0

    @abstractmethod
    def setup_environment(self) -> None:
        """Make processes able to talk to each other."""

    def sync_layers(self, module: nn.Module) -> None:
        """Prepare layers of the module, in place, that compute in all processes together.

        Called before each fit, ahead of `place`; `teardown` takes it back.
        """

    @abstractmethod
    def place(self, module: nn.Module) -> None:
        """Move the module to its device, in place; all processes then hold the same."""

    def check_optimizers(self, optimizers: list[Optimizer]) -> None:
        """Refuse optimizers that cannot train the placed module."""

    def bind(
        self, step: Callable[..., Any], *, trains: bool = False
    ) -> Callable[..., Any]:
        """Return what the loop calls in place of a step method of the placed module.

        Args:
            step: The method.
            trains: Whether gradients are computed from what it returns.
        """
        return step

    def windowed(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """Return a whole training step that talks only where gradients are complete.

        Args:
            step: The loops' step function, whose fourth argument tells whether the batch
                closes its accumulation window.
        """
        return step

    def no_sync(self) -> AbstractContextManager[None]:
        """Keep gradients computed inside to this process; the next ones take them along."""
        return nullcontext()

    def backward_into(
        self, loss: Tensor, parameters: list[Tensor], retain_graph: bool
    ) -> None:
        """Compute gradients of some of the module's parameters only.

        Args:
            loss: What to compute them of.
            parameters: Whose.
            retain_graph: Whether another loss of the same step follows.
        """
        loss.backward(inputs=parameters, retain_graph=retain_graph)  # type: ignore[no-untyped-call]

    def note_trainable(self) -> None:
        """Look again which parameters are trained; called between epochs."""

    def sync_buffers(self) -> None:
        """Give every process rank 0's buffers. Collective: every process calls it."""

    @abstractmethod
    def reduce(
        self, tensor: Tensor, group: Any = None, reduce_op: Any = "mean"
    ) -> Tensor:
        """Combine a tensor over all processes. Collective: every process calls it.

        Args:
            tensor: Stays as it is; what is no tensor is returned.
            group: Process group; by default all.
            reduce_op: "mean" (or "avg"), "sum", "min", "max", "product", or an operation
                of `torch.distributed.ReduceOp`.
        """

    @abstractmethod
    def broadcast(self, value: Any, src: int = 0) -> Any:
        """Return process `src`'s value. Collective: every process calls it."""

    @abstractmethod
    def barrier(self, name: str | None = None) -> None:
        """Wait for every process. Collective: every process calls it."""

    @abstractmethod
    def all_gather(
        self, tensor: Tensor, group: Any = None, sync_grads: bool = False
    ) -> Tensor:
        """Stack every process's tensor. Collective: every process calls it.

        Args:
            tensor: Of the same shape everywhere.
            group: Process group; by default all.
            sync_grads: Let gradients flow back to the process they belong to.
        """

    def ranks_of(self, group: Any) -> tuple[int, ...] | None:
        """Return the numbers of the processes in a group; None for that of all."""
        return None

    @abstractmethod
    def gather_objects(self, value: Any, group: Any = None) -> list[Any]:
        """Return every process's value, by rank. Collective: every process calls it.

        Args:
            value: This process's; plain data.
            group: Process group; by default all.
        """

    @abstractmethod
    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        """Agree on one answer: everybody's yes, or with `all=False` anybody's."""

    def raise_together(self, error: Exception | None) -> None:
        """Raise the error of the process that writes in all. Collective, as `barrier`.

        Args:
            error: This process's; one of another than rank 0 is raised there alone.
        """
        told = None if error is None else _as_told(error)
        told = self.broadcast(told)
        if error is not None:
            raise error
        if told is not None:
            raise told

    def on_rank_zero(self, action: Callable[[], T]) -> T:
        """Return what `action` returns in the process that writes. Collective.

        Its error is raised in every process.
        """
        result, error = None, None
        if self.is_global_zero:
            try:
                result = action()
            except Exception as caught:
                error = caught
        self.raise_together(error)
        agreed: T = self.broadcast(result)
        return agreed

    def stop_votes(self) -> StopVotes | None:
        """Return what processes agree with on where to stop; None if there is but one."""
        return None

    def cause_of(self, error: BaseException) -> BaseException:
        """Return what has led to an error: itself, or what another process has done."""
        return error

    def on_exception(self, error: BaseException) -> None:
        """Go on without the other processes, which may be anywhere or gone."""

    @abstractmethod
    def teardown(self) -> None:
        """Release devices and process groups."""

    def gathered(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return a module's or an optimizer's state as a checkpoint holds it.

        Collective: every process calls it.
        """
        return state

    def open_gradients(self, parameters: list[Tensor]) -> list[Tensor | None]:
        """Return this process's gradients of an accumulation window that is still open."""
        return [parameter.grad for parameter in parameters]

    def spread_weights(
        self, module: nn.Module, weights: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the weights of a checkpoint as this process holds the module's."""
        return weights

    def spread_optimizer_state(
        self, optimizer: Optimizer, state: dict[str, Any]
    ) -> dict[str, Any]:
        """Return an optimizer's saved state as this process holds its parameters."""
        return state

    @property
    def is_parted(self) -> bool:
        """Whether an exception has parted this process from the others."""
        return False

    def check_can_save(self, filepath: str | Path) -> None:
        """Refuse to write a checkpoint for which other processes are gone.

        Raises:
            CheckpointWriteError: It would wait for them for ever.
        """

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        filepath: str | Path,
        storage_options: Any = None,
    ) -> None:
        """Write a checkpoint: from one process, or from all if the `CheckpointIO` says so.

        Collective in the second case: every process calls it.

        Raises:
            OSError: It cannot be written.
        """
        if self.is_global_zero or self.checkpoint_io.writes_from_all_processes:
            self.checkpoint_io.save_checkpoint(
                checkpoint, filepath, storage_options=storage_options
            )

    def load_checkpoint(self, filepath: str | Path) -> dict[str, Any]:
        """Read a checkpoint into host memory."""
        return self.checkpoint_io.load_checkpoint(filepath)

    def remove_checkpoint(self, filepath: str | Path) -> None:
        """Delete a checkpoint, from the one process that writes."""
        if self.is_global_zero:
            self.checkpoint_io.remove_checkpoint(filepath)

    def failed_saves(self) -> Collection[str]:
        """Wait for checkpoints that a thread writes; name those that could not be written.

        Collective.

        Raises:
            Exception: What has gone wrong is more than a full disk or the like.
        """
        if not isinstance(self.checkpoint_io, AsyncCheckpointIO):
            return ()
        error: Exception | None = None
        try:
            self.checkpoint_io.settle()
        except Exception as caught:
            error = caught
        self.raise_together(error)
        failed: frozenset[str] = self.broadcast(
            frozenset(self.checkpoint_io.failed_paths)
        )
        return failed

    def finish_saves(self, needed: str | Path) -> None:
        """Wait for checkpoints that a thread writes, with no other to come.

        Args:
            needed: The one that has to be there.

        Raises:
            OSError: It could not be written.
        """
        try:
            if isinstance(self.checkpoint_io, AsyncCheckpointIO):
                self.checkpoint_io.settle(needed)
        finally:
            self.checkpoint_io.teardown()


def _as_told(error: Exception) -> Exception:
    """Return an error as other processes get it: all but its traceback, if possible."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
