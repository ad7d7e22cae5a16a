"""Training the head of a model first, and the rest of it later."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn import Module, ModuleDict, Parameter
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from lightgen_runtime.callbacks.callback import Callback
from lightgen_runtime.utilities.compiled_names import plain_name
from lightgen_runtime.utilities.exceptions import (
    CheckpointMismatchError,
    MisconfigurationException,
)
from lightgen_runtime.utilities.rank_zero import rank_zero_info, rank_zero_warn

if TYPE_CHECKING:
    from lightgen_runtime.core.module import LightningModule
    from lightgen_runtime.trainer.trainer import Trainer

Modules = Module | Iterable["Modules"]


def multiplicative(epoch: int) -> float:
    """Return the factor by which a backbone's learning rate grows: 2."""
    return 2.0


class BaseFinetuning(Callback):
    """Freeze parts of a model before training and unfreeze them as it goes on.

    Override `freeze_before_training` and `finetune_function`. Give the optimizer only
    what is trained from the start: `filter(lambda p: p.requires_grad, self.parameters())`.

    Compat: what had been unfrozen stays so when a fit is resumed, which Lightning forgets.

    Example:
        >>> class Later(BaseFinetuning):
        ...     def freeze_before_training(self, pl_module):
        ...         self.freeze(pl_module.backbone)
        ...
        ...     def finetune_function(self, pl_module, epoch, optimizer):
        ...         if epoch == 10:
        ...             self.unfreeze_and_add_param_group(pl_module.backbone, optimizer)
    """

    def __init__(self) -> None:
        self._internal_optimizer_metadata: dict[int, list[dict[str, Any]]] = {}
        self._trainable: list[str] = []
        self._restarting = False

    def state_dict(self) -> dict[str, Any]:
        """Return the parameter groups of each optimizer, by names."""
        return {
            "internal_optimizer_metadata": self._internal_optimizer_metadata,
            "trainable_parameters": self._trainable,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep it until the optimizers exist."""
        self._restarting = True
        self._internal_optimizer_metadata = state_dict.get(
            "internal_optimizer_metadata", {}
        )
        self._trainable = state_dict.get("trainable_parameters", [])

    # ---- to override ----

    def freeze_before_training(self, pl_module: LightningModule) -> None:
        """Freeze what is not trained from the start.

        Raises:
            NotImplementedError: It is not overridden.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define `freeze_before_training`"
        )

    def finetune_function(
        self, pl_module: LightningModule, epoch: int, optimizer: Optimizer
    ) -> None:
        """Unfreeze what is trained from this epoch on; called at each epoch's start.

        Raises:
            NotImplementedError: It is not overridden.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define `finetune_function`"
        )

    # ---- the run ----

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Freeze, before the optimizers are made."""
        if stage == "fit":
            self._internal_optimizer_metadata = {}
            self._restarting = False
            self.freeze_before_training(pl_module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give resumed optimizers the groups that they had, before their state comes."""
        if not self._restarting:
            return
        self._restarting = False
        parameters = {plain_name(n): p for n, p in pl_module.named_parameters()}
        unfrozen: list[str] = []
        for number, optimizer in enumerate(trainer.optimizers):
            if number in self._internal_optimizer_metadata:
                groups = self._internal_optimizer_metadata[number]
                for group in groups[len(optimizer.param_groups) :]:
                    unfrozen += group["params"]
                optimizer.param_groups = [
                    {
                        **group,
                        "params": [_known(parameters, n) for n in group["params"]],
                    }
                    for group in groups
                ]
        # Lightning's files tell only what went into the optimizer when it was unfrozen.
        for name in self._trainable or unfrozen:
            _known(parameters, name).requires_grad = True
        for module in pl_module.modules():
            own = list(module.parameters(recurse=False))
            if isinstance(module, _BatchNorm) and any(p.requires_grad for p in own):
                module.track_running_stats = True

    def on_train_epoch_start(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> None:
        """Unfreeze what is due, and note it for checkpoints."""
        names = {p: plain_name(n) for n, p in pl_module.named_parameters()}
        for number, optimizer in enumerate(trainer.optimizers):
            before = len(optimizer.param_groups)
            self.finetune_function(pl_module, trainer.current_epoch, optimizer)
            known = self._internal_optimizer_metadata.setdefault(number, [])
            added = optimizer.param_groups[before:] if known else optimizer.param_groups
            known += [
                {**group, "params": [names[p] for p in group["params"] if p in names]}
                for group in added
            ]
        self._trainable = [name for p, name in names.items() if p.requires_grad]

    # ---- what the two methods to override can use ----

    @staticmethod
    def flatten_modules(modules: Modules) -> list[Module]:
        """Return the layers in a module, or in any nesting of modules.

        A module that has both submodules and parameters of its own counts as a layer.
        """
        if isinstance(modules, ModuleDict):
            modules = modules.values()
        if not isinstance(modules, Module):
            return [
                layer
                for part in modules
                for layer in BaseFinetuning.flatten_modules(part)
            ]
        return [
            layer
            for layer in modules.modules()
            if not list(layer.children()) or layer._parameters
        ]

    @staticmethod
    def filter_params(
        modules: Modules, train_bn: bool = True, requires_grad: bool = True
    ) -> Iterator[Parameter]:
        """Yield the parameters that are trainable (or, by choice, those that are not).

        Args:
            modules: Where to look.
            train_bn: Whether parameters of batch norms count.
            requires_grad: Which of the two kinds to yield.
        """
        for layer in BaseFinetuning.flatten_modules(modules):
            if isinstance(layer, _BatchNorm) and not train_bn:
                continue
            for parameter in layer.parameters(recurse=False):
                if parameter.requires_grad == requires_grad:
                    yield parameter

    @staticmethod
    def make_trainable(modules: Modules) -> None:
        """Train every parameter, and let batch norms follow the data."""
        for layer in BaseFinetuning.flatten_modules(modules):
            _set_trainable(layer, True)

    @staticmethod
    def freeze_module(module: Module) -> None:
        """Stop training the parameters that the module itself has."""
        _set_trainable(module, False)

    @staticmethod
    def freeze(modules: Modules, train_bn: bool = True) -> None:
        """Stop training every parameter.

        Args:
            modules: What to freeze.
            train_bn: Go on training batch norms.
        """
        for layer in BaseFinetuning.flatten_modules(modules):
            _set_trainable(layer, isinstance(layer, _BatchNorm) and train_bn)

    @staticmethod
    def filter_on_optimizer(
        optimizer: Optimizer, params: Iterable[Parameter]
    ) -> list[Parameter]:
        """Return those parameters that the optimizer does not have yet."""
        has = {p for group in optimizer.param_groups for p in group["params"]}
        params = list(params)
        new = [parameter for parameter in params if parameter not in has]
        if len(new) < len(params):
            rank_zero_warn(
                f"{len(params) - len(new)} of {len(params)} parameters to unfreeze are in "
                "the optimizer already and keep their group. Give the optimizer only "
                "parameters with `requires_grad` in `configure_optimizers`."
            )
        return new

    @staticmethod
    def unfreeze_and_add_param_group(
        modules: Modules,
        optimizer: Optimizer,
        lr: float | None = None,
        initial_denom_lr: float = 10.0,
        train_bn: bool = True,
    ) -> None:
        """Train the modules from now on, as a new parameter group.

        Args:
            modules: What to unfreeze.
            optimizer: Which optimizer gets the group.
            lr: Its learning rate; None takes that of the first group, divided.
            initial_denom_lr: By how much it is divided.
            train_bn: Whether parameters of batch norms enter the group.
        """
        trains = set(BaseFinetuning.filter_params(modules, train_bn))
        has = {p for group in optimizer.param_groups for p in group["params"]}
        BaseFinetuning.make_trainable(modules)
        if lr is None:
            lr = optimizer.param_groups[0]["lr"] / initial_denom_lr
        # Batch norms that train from the start are meant to keep their group.
        params = [
            parameter
            for parameter in BaseFinetuning.filter_params(modules, train_bn)
            if parameter not in trains & has
        ]
        new = BaseFinetuning.filter_on_optimizer(optimizer, params)
        if new:
            optimizer.add_param_group({"params": new, "lr": float(lr)})


class BackboneFinetuning(BaseFinetuning):
    """Keep `self.backbone` of the module frozen at first, then train it ever faster.

    Args:
        unfreeze_backbone_at_epoch: First epoch, from 0, that trains it.
        lambda_func: Factor of its learning rate, by epoch.
        backbone_initial_ratio_lr: Its first learning rate, as a share of the head's.
        backbone_initial_lr: Its first learning rate, instead of a share.
        should_align: Never let it be higher than the head's.
        initial_denom_lr: Accepted for compatibility; the two before it decide.
        train_bn: Whether the backbone's batch norms enter the group that is unfrozen,
            if the optimizer does not train them from the start.
        verbose: Tell both learning rates at each epoch.
        rounding: Digits to tell them with.

    Raises:
        MisconfigurationException: The module has no `backbone`.
    """

    def __init__(
        self,
        unfreeze_backbone_at_epoch: int = 10,
        lambda_func: Callable[[int], float] = multiplicative,
        backbone_initial_ratio_lr: float = 10e-2,
        backbone_initial_lr: float | None = None,
        should_align: bool = True,
        initial_denom_lr: float = 10.0,
        train_bn: bool = True,
        verbose: bool = False,
        rounding: int = 12,
    ) -> None:
        super().__init__()
        self.unfreeze_backbone_at_epoch = unfreeze_backbone_at_epoch
        self.lambda_func = lambda_func
        self.backbone_initial_ratio_lr = backbone_initial_ratio_lr
        self.backbone_initial_lr = backbone_initial_lr
        self.should_align = should_align
        self.initial_denom_lr = initial_denom_lr
        self.train_bn = train_bn
        self.verbose = verbose
        self.rounding = rounding
        self.previous_backbone_lr: float | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the parameter groups and the backbone's learning rate."""
        return {
            **super().state_dict(),
            "previous_backbone_lr": self.previous_backbone_lr,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with that learning rate."""
        self.previous_backbone_lr = state_dict["previous_backbone_lr"]
        super().load_state_dict(state_dict)

    def freeze_before_training(self, pl_module: LightningModule) -> None:
        """Freeze the backbone, except for its batch norms."""
        self.freeze(self._backbone(pl_module))

    def finetune_function(
        self, pl_module: LightningModule, epoch: int, optimizer: Optimizer
    ) -> None:
        """Unfreeze the backbone when it is due; later, raise its learning rate."""
        if epoch < self.unfreeze_backbone_at_epoch:
            return
        head = optimizer.param_groups[0]["lr"]
        if epoch == self.unfreeze_backbone_at_epoch:
            rate = self.backbone_initial_lr
            if rate is None:
                rate = head * self.backbone_initial_ratio_lr
            self.unfreeze_and_add_param_group(
                self._backbone(pl_module), optimizer, rate, train_bn=self.train_bn
            )
        else:
            rate = self.lambda_func(epoch + 1) * (self.previous_backbone_lr or 0.0)
            if self.should_align and rate > head:
                rate = head
            optimizer.param_groups[-1]["lr"] = rate
        self.previous_backbone_lr = rate
        if self.verbose:
            digits = self.rounding
            rank_zero_info(
                f"Learning rate: {round(head, digits)}, of the backbone: "
                f"{round(rate, digits)}"
            )

    @staticmethod
    def _backbone(pl_module: LightningModule) -> Module:
        backbone = getattr(pl_module, "backbone", None)
        if not isinstance(backbone, Module):
            raise MisconfigurationException(
                f"`BackboneFinetuning` needs the part to freeze as `self.backbone`, a "
                f"module, which {type(pl_module).__name__} does not have"
            )
        return backbone


def _set_trainable(module: nn.Module, trainable: bool) -> None:
    if isinstance(module, _BatchNorm):
        module.track_running_stats = trainable
    for parameter in module.parameters(recurse=False):
        parameter.requires_grad = trainable


def _known(parameters: dict[str, Parameter], name: str) -> Parameter:
    if name not in parameters:
        raise CheckpointMismatchError(
            f"the checkpoint's optimizer trains a parameter {name!r}, which the module "
            "does not have. Resume with the module that the checkpoint was trained with."
        )
    return parameters[name]
