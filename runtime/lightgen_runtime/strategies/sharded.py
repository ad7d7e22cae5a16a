"""What strategies of one model over several processes have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from lightgen_runtime.io.checkpoint_io import TorchCheckpointIO
from lightgen_runtime.io.distributed_checkpoint_io import DistributedCheckpointIO
from lightgen_runtime.strategies.blocks import repeated_blocks
from lightgen_runtime.strategies.parallel import ParallelStrategy
from lightgen_runtime.utilities.exceptions import MisconfigurationException, add_note
from lightgen_runtime.utilities.rank_zero import rank_zero_warn


class ShardedStrategy(ParallelStrategy):
    """One model over several processes, each of which holds a part of each tensor.

    Parts are torch's `DTensor`s, made by `fully_shard` or `parallelize_module`. A
    subclass says by whom and how.

    Attributes:
        device_mesh: The run's processes, as the parts are shared out among them.
        saves_parts: Whether each process writes its parts of a checkpoint; else rank 0
            writes all, from host memory.
    """

    spreads_model = True
    device_mesh: Any = None
    saves_parts = False

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._sharded: list[Any] = []
        # Parts: the module itself has whole ones between a step and its backward.
        self._parameters: list[nn.Parameter] = []
        self._syncs = True

    def setup_environment(self) -> None:
        """See `Strategy`; also arrange the processes in a mesh."""
        super().setup_environment()
        if self.saves_parts and type(self.checkpoint_io) is TorchCheckpointIO:
            self.checkpoint_io = DistributedCheckpointIO()
        if self.saves_parts and not self.checkpoint_io.writes_from_all_processes:
            raise MisconfigurationException(
                f"`{type(self).__name__}` is to save checkpoints in parts, and "
                f"{type(self.checkpoint_io).__name__} writes whole files from one process. "
                "Pass a `checkpoint_io` that writes from all processes."
            )
        if self.device_mesh is None:
            self.device_mesh = self._make_mesh()

    def _make_mesh(self) -> Any:
        raise NotImplementedError

    def on_exception(self, error: BaseException) -> None:
        """See `Strategy`; say what to do about layers whose weights are not together."""
        super().on_exception(error)
        if "called once on a module" in str(error) or "module once" in str(error):
            add_note(
                error,
                "`configure_model` is called in every run of a trainer; let it return "
                "early if the module is shared out already.",
            )
        if "_amp_foreach" in str(error):
            add_note(
                error,
                "torch's gradient scaler does not take parameters in parts together with "
                "whole ones. Use precision='bf16-mixed', which needs no scaler, or share "
                "out the rest of the module too.",
            )
        elif "mixed torch.Tensor and DTensor" in str(error):
            add_note(
                error,
                "A layer was used while its weights lie in parts: they are put together "
                "inside `training_step` and the other steps of automatic optimization, and "
                "inside the forward of the sharded modules. Call the sharded module as a "
                "whole, `self.net(x)`, not a layer inside it.",
            )

    def teardown(self) -> None:
        """See `Strategy`."""
        super().teardown()
        self._sync_gradients(True)
        self._sharded, self._parameters = [], []

    # ---- the module ----

    def blocks(self, module: nn.Module) -> list[nn.Module]:
        """Return the parts that are sharded, and compiled, by themselves."""
        return repeated_blocks(module)

    def _make_real(self, module: nn.Module) -> None:
        """Bring all to its device; what has no content yet gets it from its layer.

        Raises:
            MisconfigurationException: A layer does not say what its content is.
        """
        from lightgen_runtime.strategies.spread import is_spread

        empty = {
            name: part
            for name, part in module.named_modules()
            if any(
                t.is_meta
                for t in (*part.parameters(recurse=False), *part.buffers(recurse=False))
            )
        }

        def real(tensor: Tensor) -> Tensor:
            if tensor.is_meta:
                return torch.empty_like(tensor, device=self._device_of_parts)
            return tensor if is_spread(tensor) else tensor.to(self.root_device)

        module._apply(real)  # type: ignore[no-untyped-call]
        for name, part in empty.items():
            reset: Any = getattr(part, "reset_parameters", None)
            if reset is None:
                raise MisconfigurationException(
                    f"`{name}` ({type(part).__name__}) was made on the meta device and has "
                    "no `reset_parameters` method, which would give its parameters and "
                    "buffers their first values. Add one, or make it on a real device."
                )
            with torch.no_grad():
                reset()

    @property
    def _device_of_parts(self) -> torch.device:
        return self.root_device

    def _note_placed(self, module: nn.Module) -> None:
        from lightgen_runtime.strategies.spread import is_spread, sharded_modules

        tensors = [*module.parameters(), *module.buffers()]
        self._send_from_rank_zero([t for t in tensors if not is_spread(t)])
        self._sharded = sharded_modules(module)
        self._parameters = list(module.parameters())
        self._syncs = True
        for part in self._sharded:
            if self.root_device.type == "cpu":
                # Source: gloo took the sum where it was asked for a mean, without a word;
                # https://github.com/pytorch/pytorch/issues/162338
                part.set_force_sum_reduction_for_comms(True)
            if not self._module.automatic_optimization:
                # Else what takes part in a forward and not in its backward would stay
                # together while an optimizer changes the parts.
                part.set_reshard_after_forward(True, recurse=False)

    def sync_buffers(self) -> None:
        """See `Strategy`."""
        from lightgen_runtime.strategies.spread import is_spread

        buffers = self._module.buffers()
        self._send_from_rank_zero([b for b in buffers if not is_spread(b)])

    def check_optimizers(self, optimizers: list[Optimizer]) -> None:
        """See `Strategy`.

        Raises:
            MisconfigurationException: One was made for parameters that are no longer the
                module's, or works on all of them as one tensor.
        """
        own = {id(parameter) for parameter in self._module.parameters()}
        for optimizer in optimizers:
            kind = type(optimizer).__name__
            if isinstance(optimizer, LBFGS):
                raise MisconfigurationException(
                    f"{kind} with {type(self).__name__}: it makes one tensor of all "
                    "parameters, which lie in parts in several processes. Use another "
                    "optimizer, or strategy='ddp'."
                )
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if isinstance(parameter, nn.Parameter) and id(parameter) not in own:
                        raise MisconfigurationException(
                            f"`configure_optimizers` returned {kind} for a parameter of "
                            f"shape {tuple(parameter.shape)} that is no longer the "
                            f"module's: {type(self).__name__} has put parts in place of "
                            "whole parameters. Make the optimizer inside "
                            "`configure_optimizers`, from `self.parameters()`."
                        )

    def bind(
        self, step: Callable[..., Any], *, trains: bool = False
    ) -> Callable[..., Any]:
        """See `Strategy`; weights that belong to no sharded submodule are together in it.

        Not so where a step computes its gradients by itself: there they would be in parts
        again behind the first backward. Behind an evaluating step all are in parts, for
        hooks that change them.
        """
        automatic = self._module.automatic_optimization
        if self._module in self._sharded and (automatic or not trains):
            from lightgen_runtime.strategies.spread import through_forward

            step = through_forward(self._module, step)
        if not trains:
            return self._parted_after(step)
        if not automatic:
            return step

        def checked(*args: Any) -> Any:
            output = step(*args)
            if output is None:
                raise self._others_wait()
            return output

        return checked

    def _parted_after(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def evaluated(*args: Any) -> Any:
            output = step(*args)
            for part in self._sharded:
                part.reshard()
            return output

        return evaluated

    def windowed(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """See `Strategy`."""

        def in_window(
            batch: Any, batch_idx: int, opens: bool, closes: bool, divisor: int
        ) -> Any:
            if closes != self._syncs:
                self._sync_gradients(closes)
            return step(batch, batch_idx, opens, closes, divisor)

        automatic = self._module.automatic_optimization
        return in_window if self._sharded and automatic else step

    def backward_into(
        self, loss: Tensor, parameters: list[Tensor], retain_graph: bool
    ) -> None:
        """See `Strategy`.

        The graph knows the whole weights, not the parts: all gradients are computed, and
        those that are not asked for are dropped.
        """
        if not self._sharded:
            return super().backward_into(loss, parameters, retain_graph)
        own = {id(parameter) for parameter in parameters}
        others = [p for p in self._parameters if id(p) not in own]
        kept = [parameter.grad for parameter in others]
        for parameter in others:
            parameter.grad = None  # it would be added to in place
        # In an open window too: whole, those of several losses could not be told apart.
        self._sync_gradients(True)
        loss.backward(retain_graph=retain_graph)  # type: ignore[no-untyped-call]
        for parameter, gradient in zip(others, kept, strict=True):
            parameter.grad = gradient

    def no_sync(self) -> AbstractContextManager[None]:
        """See `Strategy`."""

        @contextmanager
        def quiet() -> Iterator[None]:
            self._sync_gradients(False)
            try:
                yield
            finally:
                self._sync_gradients(True)

        return quiet()

    def _sync_gradients(self, sync: bool) -> None:
        for part in self._sharded:
            part.set_requires_gradient_sync(sync, recurse=False)
        self._syncs = sync

    @staticmethod
    def clip_norm(parameters: list[Tensor], max_norm: float) -> None:
        """See `Strategy`. Collective: every process calls it."""
        from lightgen_runtime.strategies import spread

        spread.clip_norm(parameters, max_norm)

    @staticmethod
    def clip_value(parameters: list[Tensor], limit: float) -> None:
        """See `Strategy`."""
        from lightgen_runtime.strategies import spread

        spread.clip_value(parameters, limit)

    # ---- checkpoints ----

    def gathered(self, state: dict[str, Any]) -> dict[str, Any]:
        """See `Strategy`; whole on rank 0, unless each process saves its parts."""
        if self.saves_parts:
            return state
        from lightgen_runtime.strategies.spread import whole

        return whole(state, keep=self.is_global_zero)

    def open_gradients(self, parameters: list[Tensor]) -> list[Tensor | None]:
        """See `Strategy`; they have no place in a checkpoint here, which is told."""
        rank_zero_warn(
            f"a checkpoint inside an accumulation window: {type(self).__name__} does not "
            "keep its gradients so far. A fit that goes on from it leaves them out of one "
            "step. Save where a window closes to go on exactly."
        )
        return []

    def spread_weights(
        self, module: nn.Module, weights: dict[str, Any]
    ) -> dict[str, Any]:
        """See `Strategy`."""
        from lightgen_runtime.strategies import spread

        return spread.spread_weights(module, weights)

    def spread_optimizer_state(
        self, optimizer: Optimizer, state: dict[str, Any]
    ) -> dict[str, Any]:
        """See `Strategy`."""
        from lightgen_runtime.strategies import spread

        return spread.spread_optimizer_state(optimizer, state)
