"""What users subclass: a `torch.nn.Module` in six plain sections.

Owns the user's surface only. It knows no loop: what a run offers to a module (logging,
optimizers, backward) reaches it as two records that the trainer attaches for the run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import Self

from lightgen_runtime.core.data_hooks import DataHooks
from lightgen_runtime.core.export import Exportable
from lightgen_runtime.core.gathering import Gathering
from lightgen_runtime.core.hparams import HyperparametersMixin
from lightgen_runtime.core.loading import class_only, load_from_checkpoint
from lightgen_runtime.core.module_hooks import ModuleHooks
from lightgen_runtime.core.optim import LightningOptimizer
from lightgen_runtime.utilities.compiled_names import rename_for, rename_saved
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.rank_zero import rank_zero_warn

if TYPE_CHECKING:
    from lightgen_runtime.core.metrics import LogContext
    from lightgen_runtime.loggers import Logger
    from lightgen_runtime.loops.run import Run
    from lightgen_runtime.trainer.trainer import Trainer


class LightningModule(
    ModuleHooks, DataHooks, HyperparametersMixin, Exportable, Gathering
):
    """A model together with how it is trained, evaluated and optimized.

    Example:
        >>> class Line(LightningModule):
        ...     def __init__(self, lr=0.1):
        ...         super().__init__()
        ...         self.save_hyperparameters()
        ...         self.weight = torch.nn.Parameter(torch.zeros(()))
        ...
        ...     def training_step(self, batch, batch_idx):
        ...         loss = ((self.weight * batch - 2 * batch) ** 2).mean()
        ...         self.log("train_loss", loss)
        ...         return loss
        ...
        ...     def configure_optimizers(self):
        ...         return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)
        >>> Line(lr=0.5).hparams.lr
        0.5
    """

    # In the class, so that a subclass may set them there too.
    example_input_array: Any = None
    automatic_optimization: bool = True

    if TYPE_CHECKING:  # TorchScript would try to compile annotations of the class
        _log_context: LogContext | None
        _run: Run | None

    # Properties that TorchScript is to leave out.
    __jit_unused_properties__ = (
        "trainer",
        "current_epoch",
        "global_step",
        "global_rank",
        "local_rank",
        "logger",
        "loggers",
        "device",
        "device_mesh",
        "dtype",
        "on_gpu",
        "strict_loading",
        "hparams",
        "hparams_initial",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Straight into the instance: `nn.Module.__setattr__` costs ten times as much,
        # and the trainer must never become a submodule.
        self.__dict__.update(
            _trainer=None,
            _log_context=None,
            _run=None,
            _compiles_with=None,
            _device=torch.device("cpu"),
            _dtype=torch.get_default_dtype(),
        )
        self._strict_loading: bool | None = None

    # ---- steps ----

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute outputs from inputs, as in any `torch.nn.Module`."""
        return super().forward(*args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the loss of one batch: `training_step(batch, batch_idx)`.

        Returns:
            The loss, a tensor of one element with a graph; a mapping with it under
            "loss"; or None to skip the batch. In manual optimization anything goes.
        """
        raise _missing(self, "training_step", "fit")

    def validation_step(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate one batch: `validation_step(batch, batch_idx[, dataloader_idx])`.

        Runs in evaluation mode and without gradients. What it returns goes to
        `on_validation_batch_end`.
        """
        raise _missing(self, "validation_step", "validate")

    def test_step(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate one test batch, as `validation_step` does for validation."""
        raise _missing(self, "test_step", "test")

    def predict_step(self, *args: Any, **kwargs: Any) -> Any:
        """Predict one batch: `predict_step(batch, batch_idx[, dataloader_idx])`.

        Returns:
            Anything; `trainer.predict` collects it. By default `self(batch)`.
        """
        return self(kwargs.get("batch", args[0] if args else None))

    # ---- configuration ----

    def configure_optimizers(self) -> Any:
        """Return the optimizers, and schedulers if there are any.

        Returns:
            One optimizer; several in a list; `[optimizers], [schedulers]`; a dictionary
            with "optimizer" and, if wanted, "lr_scheduler" and "monitor"; several such
            dictionaries; or None. "lr_scheduler" is a scheduler or a dictionary with
            "scheduler", "interval" ("epoch" or "step"), "frequency", "monitor", "strict"
            and "name".
        """
        raise _missing(self, "configure_optimizers", "fit")

    def configure_callbacks(self) -> Any:
        """Return a callback or a list of them to add to the trainer's.

        One of a type that the trainer has too takes that one's place.
        """
        return []

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip gradients before a step; override it to clip in another way.

        Args:
            optimizer: The optimizer about to step.
            gradient_clip_val: The trainer's setting.
            gradient_clip_algorithm: The trainer's setting.
        """
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    # ---- logging ----

    def log(
        self,
        name: str,
        value: Any,
        prog_bar: bool = False,
        logger: bool | None = None,
        on_step: bool | None = None,
        on_epoch: bool | None = None,
        reduce_fx: str | Callable[..., Any] = "mean",
        enable_graph: bool = False,
        sync_dist: bool = False,
        sync_dist_group: Any = None,
        add_dataloader_idx: bool = True,
        batch_size: int | None = None,
        metric_attribute: str | None = None,
        rank_zero_only: bool = False,
    ) -> None:
        """Record a metric for loggers, callbacks and the progress bar.

        Args:
            name: Key; the same key may be logged once per hook.
            value: Number, or tensor of one element.
            prog_bar: Show it in the progress bar.
            logger: Send it to the loggers; None means yes.
            on_step: Report single values; by default True in training steps only.
            on_epoch: Report the epoch's reduction; by default True elsewhere.
            reduce_fx: "mean" (weighted by batch size), "sum", "min" or "max".
            enable_graph: Keep the value's graph.
            sync_dist: Reduce single values over all processes too, where they are
                reported, and make sure that every process logs the key. Epoch values are
                reduced over all processes in any case.
            sync_dist_group: Process group to reduce over, with `sync_dist`.
            add_dataloader_idx: With several loaders, keep their values apart by adding
                "/dataloader_idx_N" to the key.
            batch_size: Weight of the value in a mean; by default the size of the first
                tensor found in the batch.
            metric_attribute: Accepted for compatibility.
            rank_zero_only: Keep the values to the process that logs them.

        Raises:
            MisconfigurationException: The value, the hook or the arguments do not allow
                it.

        Cost: two Python calls, no host sync.
        """
        context = self._log_context
        if context is None:
            rank_zero_warn(
                f"`self.log({name!r}, ...)` outside of a run does nothing: "
                f"{type(self).__name__} is not attached to a trainer, nor part of a module "
                "that is"
            )
            return
        call = (
            prog_bar,
            logger,
            on_step,
            on_epoch,
            reduce_fx,
            enable_graph,
            sync_dist,
            sync_dist_group,
            add_dataloader_idx,
            metric_attribute,
            rank_zero_only,
        )
        scope = context.scope
        slot = scope.slots.get(name)
        if slot is None or slot.call != call:
            slot = scope.open(name, value, call)
        slot.update(value, batch_size, context)

    def log_dict(
        self,
        dictionary: Mapping[str, Any],
        prog_bar: bool = False,
        logger: bool | None = None,
        on_step: bool | None = None,
        on_epoch: bool | None = None,
        reduce_fx: str | Callable[..., Any] = "mean",
        enable_graph: bool = False,
        sync_dist: bool = False,
        sync_dist_group: Any = None,
        add_dataloader_idx: bool = True,
        batch_size: int | None = None,
        rank_zero_only: bool = False,
    ) -> None:
        """Record several metrics at once, all with the same options.

        Args:
            dictionary: Values by key.
            prog_bar: This and all others as in `log`.
            logger: See `log`.
            on_step: See `log`.
            on_epoch: See `log`.
            reduce_fx: See `log`.
            enable_graph: See `log`.
            sync_dist: See `log`.
            sync_dist_group: See `log`.
            add_dataloader_idx: See `log`.
            batch_size: See `log`.
            rank_zero_only: See `log`.
        """
        if not hasattr(dictionary, "items"):
            raise MisconfigurationException(
                f"`self.log_dict` got {type(dictionary).__name__}; it takes a dictionary "
                "of values by name. One value is logged with `self.log(name, value)`."
            )
        for name, value in dictionary.items():
            self.log(
                name,
                value,
                prog_bar,
                logger,
                on_step,
                on_epoch,
                reduce_fx,
                enable_graph,
                sync_dist,
                sync_dist_group,
                add_dataloader_idx,
                batch_size,
                None,
                rank_zero_only,
            )

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print from the first process only, without disturbing the progress bar."""
        self.trainer.print(*args, **kwargs)

    # ---- optimization by hand ----

    def optimizers(
        self, use_pl_optimizer: bool = True
    ) -> LightningOptimizer | Optimizer | list[LightningOptimizer] | list[Optimizer]:
        """Return the run's optimizer, or the list of them if there are several.

        Args:
            use_pl_optimizer: Whether `step` counts in the trainer's progress (else the
                bare optimizers are returned).
        """
        plan = self._attached_run().plan
        chosen: list[Any] = plan.wrapped if use_pl_optimizer else plan.optimizers
        return chosen[0] if len(chosen) == 1 else list(chosen)

    def lr_schedulers(self) -> Any:
        """Return the run's scheduler, the list of them if several, or None."""
        schedulers = [c.scheduler for c in self._attached_run().plan.schedulers]
        if len(schedulers) <= 1:
            return schedulers[0] if schedulers else None
        return schedulers

    def manual_backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Compute gradients of `loss` in manual optimization.

        Args:
            loss: Tensor of one element.
            args: Passed on to `backward`.
            kwargs: Likewise.
        """
        if self.automatic_optimization:
            raise MisconfigurationException(
                "`manual_backward` in automatic optimization: the trainer computes the "
                "gradients itself. Set `self.automatic_optimization = False` in "
                "`__init__`, or just return the loss."
            )
        self._attached_run().backward(loss, *args, **kwargs)

    def toggle_optimizer(self, optimizer: Optimizer | LightningOptimizer) -> None:
        """Let only this optimizer's parameters require gradients, until untoggled."""
        self._attached_run().toggle(optimizer, True)

    def untoggle_optimizer(self, optimizer: Optimizer | LightningOptimizer) -> None:
        """Give every parameter back the `requires_grad` it had before."""
        self._attached_run().toggle(optimizer, False)

    @contextmanager
    def toggled_optimizer(
        self, optimizer: Optimizer | LightningOptimizer
    ) -> Iterator[None]:
        """Toggle the optimizer inside a `with` block."""
        self.toggle_optimizer(optimizer)
        try:
            yield
        finally:
            self.untoggle_optimizer(optimizer)

    def clip_gradients(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients of one optimizer's parameters in place.

        Args:
            optimizer: Whose parameters.
            gradient_clip_val: Largest norm or absolute value; None does nothing.
            gradient_clip_algorithm: "norm" (the default) or "value".
        """
        if gradient_clip_val:
            self._attached_run().clip(
                optimizer, gradient_clip_val, gradient_clip_algorithm or "norm"
            )

    # ---- where the run stands ----

    @property
    def trainer(self) -> Trainer:
        """The trainer that runs this module.

        Raises:
            RuntimeError: There is none.
        """
        trainer: Trainer | None = self.__dict__["_trainer"]
        if trainer is None:
            raise RuntimeError(
                f"{type(self).__name__} is not attached to a `Trainer`: pass it to "
                "`trainer.fit()` or another of its methods first"
            )
        return trainer

    @trainer.setter
    def trainer(self, trainer: Trainer | None) -> None:
        for part in self.modules():
            if isinstance(part, LightningModule):
                part.__dict__["_trainer"] = trainer

    def _attached_run(self) -> Run:
        if self._run is None:
            raise RuntimeError(
                f"{type(self).__name__} has not been trained: optimizers exist from "
                "`on_fit_start` on"
            )
        return self._run

    @property
    def current_epoch(self) -> int:
        """Epochs completed, which is the 0-based number of the running one."""
        trainer = self.__dict__["_trainer"]
        return trainer.current_epoch if trainer else 0

    @property
    def global_step(self) -> int:
        """Optimizer steps taken in all epochs."""
        trainer = self.__dict__["_trainer"]
        return trainer.global_step if trainer else 0

    @property
    def global_rank(self) -> int:
        """Number of this process among all, 0 being the main one."""
        trainer = self.__dict__["_trainer"]
        return trainer.global_rank if trainer else 0

    @property
    def local_rank(self) -> int:
        """Number of this process on its node."""
        trainer = self.__dict__["_trainer"]
        return trainer.local_rank if trainer else 0

    @property
    def logger(self) -> Logger | None:
        """The trainer's first logger."""
        trainer = self.__dict__["_trainer"]
        return trainer.logger if trainer else None

    @property
    def loggers(self) -> list[Logger]:
        """All loggers of the trainer."""
        trainer = self.__dict__["_trainer"]
        return trainer.loggers if trainer else []

    @property
    def device(self) -> torch.device:
        """The device this module was last moved to."""
        device: torch.device = self.__dict__["_device"]
        return device

    @property
    def device_mesh(self) -> Any:
        """The run's processes as `torch.distributed.DeviceMesh`; None if it has none.

        Of `ModelParallelStrategy`, with the dimensions "data_parallel" and
        "tensor_parallel", for `configure_model` to share the layers out on.
        """
        trainer = self.__dict__["_trainer"]
        return getattr(trainer.strategy, "device_mesh", None) if trainer else None

    @property
    def on_gpu(self) -> bool:
        """Whether this module was last moved to a CUDA device."""
        return self.device.type == "cuda"

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type this module was last converted to."""
        dtype: torch.dtype = self.__dict__["_dtype"]
        return dtype

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Every `.to`, `.cuda`, `.half` of torch ends here; an empty tensor tells where
        # it leads even for a module that has no parameter.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        probe = fn(torch.empty(0, dtype=self.dtype, device=self.device))
        self.__dict__.update(_device=probe.device, _dtype=probe.dtype)
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return parameters and buffers by name, as in any `torch.nn.Module`.

        What is inside of a compiled part has the name that it has without compilation.
        """
        state = super().state_dict(*args, **kwargs)
        rename_saved(state, kwargs.get("prefix", ""))
        return state

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        rename_for(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    @property
    def strict_loading(self) -> bool:
        """Whether checkpoints must match the parameter names exactly."""
        return True if self._strict_loading is None else self._strict_loading

    @strict_loading.setter
    def strict_loading(self, strict: bool) -> None:
        self._strict_loading = strict

    # ---- the whole model ----

    def freeze(self) -> Self:
        """Stop training every parameter, switch to evaluation mode, and return `self`."""
        self.requires_grad_(False)
        return self.eval()

    def unfreeze(self) -> Self:
        """Train every parameter, switch to training mode, and return `self`."""
        self.requires_grad_(True)
        return self.train()

    @class_only
    def load_from_checkpoint(
        cls,
        checkpoint_path: str | os.PathLike[str],
        map_location: Any = None,
        hparams_file: str | os.PathLike[str] | None = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        **kwargs: Any,
    ) -> Self:
        """Rebuild a trained module: saved hyperparameters, then saved weights.

        Args:
            checkpoint_path: The file.
            map_location: Where tensors go, as in `torch.load`; None is the CPU.
            hparams_file: YAML file whose values replace the checkpoint's.
            strict: Whether parameter names must match exactly; None asks the module's
                `strict_loading`.
            weights_only: Accepted for compatibility; loading never runs code.
            kwargs: Hyperparameters that replace saved ones.

        Raises:
            CheckpointNotFoundError: No such file.
            CheckpointFormatError: The file is no readable checkpoint.
            CheckpointMismatchError: The weights do not fit.
            MisconfigurationException: `__init__` lacks a value, or got one too many.
        """
        return load_from_checkpoint(
            cls, checkpoint_path, map_location, hparams_file, strict, kwargs
        )

    def __getstate__(self) -> dict[str, Any]:
        # A copy or a pickle is of the model, not of the run it is part of.
        of_run = ("_trainer", "_log_context", "_run", "_compiles_with")
        state = {**self.__dict__, **dict.fromkeys(of_run)}
        state.pop("_compiled_call_impl", None)  # as in torch: it cannot be copied
        return state


def attach(
    module: LightningModule, context: LogContext | None, run: Run | None
) -> None:
    """Connect a module, and every `LightningModule` inside it, to a run.

    Not a method, whose name a user's module could have for something else.

    Args:
        module: The outermost module.
        context: Where `self.log` goes; None lets it warn.
        run: What `self.trainer`, `self.optimizers()` and the like ask.
    """
    for part in module.modules():
        if isinstance(part, LightningModule):
            part.__dict__.update(_log_context=context, _run=run)
            if run is not None:
                part.__dict__["_trainer"] = run.trainer


def _missing(module: object, hook: str, method: str) -> MisconfigurationException:
    return MisconfigurationException(
        f"`trainer.{method}()` needs `{hook}`, which {type(module).__name__} does not "
        "define"
    )
