"""Setting the least important weights to zero while training goes on."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.utils import prune

from lightgen_runtime.callbacks.callback import Callback
from lightgen_runtime.core.module import LightningModule
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.rank_zero import rank_zero_info

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

    from lightgen_runtime.trainer.trainer import Trainer

ParameterList = Sequence[tuple[nn.Module, str]]

# By name: the function that prunes one parameter, and the class that prunes several.
_METHODS: dict[str, tuple[Callable[..., Any], type]] = {
    "ln_structured": (prune.ln_structured, prune.LnStructured),
    "l1_unstructured": (prune.l1_unstructured, prune.L1Unstructured),
    "random_structured": (prune.random_structured, prune.RandomStructured),
    "random_unstructured": (prune.random_unstructured, prune.RandomUnstructured),
}
_CONTAINERS = (LightningModule, nn.Sequential, nn.ModuleList, nn.ModuleDict)


class ModelPruning(Callback):
    """Prune parameters at the end of each epoch, with `torch.nn.utils.prune`.

    Args:
        pruning_fn: `ln_structured`, `l1_unstructured`, `random_structured`,
            `random_unstructured`, or a subclass of `prune.BasePruningMethod`.
        parameters_to_prune: Pairs of a module and a parameter's name; empty for all.
        parameter_names: Names to choose by when `parameters_to_prune` is empty: some of
            `weight` and `bias`; None for both.
        use_global_unstructured: Compare the weights of all parameters with each other,
            rather than those of each parameter.
        amount: How much to prune: a share from 0 to 1, a number of weights, or a
            function that returns either for an epoch.
        apply_pruning: Whether to prune, or a function that tells it for an epoch.
        make_pruning_permanent: Leave no masks in checkpoints, nor after training.
        use_lottery_ticket_hypothesis: Whether to set what is left back to how it began,
            or a function that tells it for an epoch.
        resample_parameters: Draw those new beginnings anew.
        pruning_dim: Dimension that a structured method prunes along.
        pruning_norm: Norm of `ln_structured`.
        verbose: 1 tells how much is pruned, 2 for each parameter, 0 nothing.
        prune_on_train_epoch_end: Prune at the end of the training epoch; otherwise at
            the end of validation.

    Raises:
        MisconfigurationException: At construction for arguments that are not accepted;
            at the start of a run for parameters that the model does not have.

    Compat: a fit that is resumed goes on with the masks of its checkpoint, and with the
    beginnings of the first fit. On a CPU too, weights are set back to how they began each
    time.

    Source: Frankle and Carbin, The Lottery Ticket Hypothesis, 2019 (arXiv:1803.03635).
    """

    PARAMETER_NAMES = ("weight", "bias")

    def __init__(
        self,
        pruning_fn: Callable[..., Any] | str,
        parameters_to_prune: ParameterList = (),
        parameter_names: list[str] | None = None,
        use_global_unstructured: bool = True,
        amount: int | float | Callable[[int], int | float] = 0.5,
        apply_pruning: bool | Callable[[int], bool] = True,
        make_pruning_permanent: bool = True,
        use_lottery_ticket_hypothesis: bool | Callable[[int], bool] = True,
        resample_parameters: bool = False,
        pruning_dim: int | None = None,
        pruning_norm: int | None = None,
        verbose: int = 0,
        prune_on_train_epoch_end: bool = True,
    ) -> None:
        for name in parameter_names or ():
            if name not in self.PARAMETER_NAMES:
                raise _refused(
                    f"parameter_names={parameter_names!r}",
                    " and ".join(map(repr, self.PARAMETER_NAMES)),
                )
        if not (isinstance(amount, int | float) or callable(amount)):
            raise _refused(
                f"amount={amount!r}",
                "a share from 0 to 1, a number of weights, or a function of the epoch",
            )
        if verbose not in (0, 1, 2):
            raise _refused(f"verbose={verbose!r}", "0, 1 and 2")
        self._use_global_unstructured = use_global_unstructured
        self._parameters_to_prune = parameters_to_prune
        self._parameter_names = tuple(parameter_names or self.PARAMETER_NAMES)
        self._apply_pruning = apply_pruning
        self._make_pruning_permanent = make_pruning_permanent
        self._use_lottery_ticket_hypothesis = use_lottery_ticket_hypothesis
        self._resample_parameters = resample_parameters
        self._verbose = verbose
        self._prune_on_train_epoch_end = prune_on_train_epoch_end
        self._first_layers: dict[nn.Module, nn.Module] = {}  # as they began
        # By number of the parameter: mask, and what it hides of the trained values.
        self._masks: dict[int, tuple[Tensor, Tensor]] = {}
        self._is_permanent = False
        self._loading: RemovableHandle | None = None
        self._method_arguments: dict[str, Any] = {}
        self.amount = amount
        self.pruning_fn = self._chosen_method(pruning_fn, pruning_dim, pruning_norm)

    def _chosen_method(
        self, given: Callable[..., Any] | str, dim: int | None, norm: int | None
    ) -> Callable[..., Any]:
        if not isinstance(given, str):
            if not (
                inspect.isclass(given) and issubclass(given, prune.BasePruningMethod)
            ):
                raise _refused(
                    f"pruning_fn={given!r}",
                    f"{', '.join(_METHODS)}, or a subclass of `BasePruningMethod`",
                )
            if not self._use_global_unstructured:
                raise MisconfigurationException(
                    f"`ModelPruning({given.__name__}, use_global_unstructured=False)`: a "
                    "class prunes all parameters at once. Set it to True, or name a method."
                )
            return self._checked_for_global(given)
        name = given.lower()
        if name not in _METHODS:
            raise _refused(f"pruning_fn={given!r}", ", ".join(_METHODS))
        if name.endswith("_structured"):
            self._method_arguments["dim"] = _needed(name, "pruning_dim", dim)
        if name == "ln_structured":
            self._method_arguments["n"] = _needed(name, "pruning_norm", norm)
        function, method = _METHODS[name]
        if self._use_global_unstructured:
            return self._checked_for_global(method)
        return partial(function, **self._method_arguments)

    def _checked_for_global(self, method: Any) -> Callable[..., Any]:
        if method.PRUNING_TYPE != "unstructured":
            raise MisconfigurationException(
                f"`ModelPruning({method.__name__})`: a {method.PRUNING_TYPE} method cannot "
                "compare all parameters. Pass use_global_unstructured=False."
            )
        checked: Callable[..., Any] = method
        return checked

    # What.

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the parameters, and keep how they begin."""
        self._masks, self._is_permanent = {}, False
        chosen = self.sanitize_parameters_to_prune(
            pl_module, self._parameters_to_prune, self._parameter_names
        )
        self._parameters_to_prune = self.filter_parameters_to_prune(chosen)
        if not self._parameters_to_prune:
            raise MisconfigurationException(
                f"`{type(self).__name__}.filter_parameters_to_prune` kept none of "
                f"{len(chosen)} parameters: return those to prune, or leave the callback out."
            )
        if self._use_lottery_ticket_hypothesis:
            former = self._first_layers
            layers = dict.fromkeys(layer for layer, _ in self._parameters_to_prune)
            self._first_layers = {
                # What has masks of an earlier run began there, and has no copy.
                layer: (
                    former[layer]
                    if layer in former and prune.is_pruned(layer)
                    else deepcopy(layer)
                )
                for layer in layers
            }
        self._loading = pl_module.register_load_state_dict_pre_hook(  # type: ignore[no-untyped-call]
            _take_masks_off
        )

    def teardown(
        self, trainer: Trainer, pl_module: LightningModule, stage: str
    ) -> None:
        """Leave the module's loading as it was."""
        if self._loading is not None:
            self._loading.remove()
            self._loading = None

    def filter_parameters_to_prune(
        self, parameters_to_prune: ParameterList = ()
    ) -> ParameterList:
        """Return those to prune; override it to choose."""
        return parameters_to_prune

    @staticmethod
    def sanitize_parameters_to_prune(
        pl_module: LightningModule,
        parameters_to_prune: ParameterList = (),
        parameter_names: Sequence[str] = (),
    ) -> ParameterList:
        """Return the pairs given, or all of the model if none are.

        Raises:
            MisconfigurationException: They are no pairs, or not of this model.
        """
        layers = [m for m in pl_module.modules() if not isinstance(m, _CONTAINERS)]
        if not parameters_to_prune:
            return [
                (layer, name)
                for name in parameter_names or ModelPruning.PARAMETER_NAMES
                for layer in layers
                if isinstance(getattr(layer, name, None), nn.Parameter)
            ]
        for pair in parameters_to_prune:
            if not (
                isinstance(pair, tuple | list)
                and len(pair) == 2
                and isinstance(pair[0], nn.Module)
                and isinstance(pair[1], str)
            ):
                raise _refused(
                    f"parameters_to_prune=[..., {pair!r}]",
                    "pairs of a module and a parameter's name, or none for all",
                )
            if pair[0] not in layers or not hasattr(*pair):
                raise MisconfigurationException(
                    f"`ModelPruning`: {type(pl_module).__name__} has no parameter "
                    f"{pair[1]!r} of {pair[0]!r}"
                )
        return parameters_to_prune

    # When.

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prune, if this is the place."""
        if self._prune_on_train_epoch_end:
            self._run_pruning(trainer.current_epoch)

    def on_validation_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> None:
        """Prune, if this is the place."""
        if not self._prune_on_train_epoch_end and not trainer.sanity_checking:
            self._run_pruning(trainer.current_epoch)

    def _run_pruning(self, epoch: int) -> None:
        amount = _of_epoch(self.amount, epoch)
        if not amount or not _of_epoch(self._apply_pruning, epoch):
            return
        self.apply_pruning(amount)
        if _of_epoch(self._use_lottery_ticket_hypothesis, epoch):
            self.apply_lottery_ticket_hypothesis()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave plain parameters with zeros in them."""
        if self._make_pruning_permanent:
            self._masks, self._is_permanent = self._current_masks(), True
            self.make_pruning_permanent(pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Return masks, what they hide, and how the parameters began."""
        masks = self._masks if self._is_permanent else self._current_masks()
        began = {
            number: getattr(self._first_layers[layer], name).detach().cpu()
            for number, (layer, name) in enumerate(self._parameters_to_prune)
            if layer in self._first_layers
        }
        return {"masks": masks, "began": began} if masks or began else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them back; the masks are put on when the optimizers are made."""
        self._masks = state_dict.get("masks", {})
        for number, began in state_dict.get("began", {}).items():
            layer, name = self._parameters_to_prune[number]
            if layer in self._first_layers:
                first = getattr(self._first_layers[layer], name)
                first.data = began.to(first.device, first.dtype)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with the masks of a checkpoint."""
        for number, (mask, hidden) in self._masks.items():
            layer, name = self._parameters_to_prune[number]
            parameter = getattr(layer, name)
            mask = mask.to(parameter.device)
            parameter.data[mask == 0] = hidden.to(parameter.device, parameter.dtype)
            prune.custom_from_mask(layer, name, mask)  # type: ignore[no-untyped-call]

    def _current_masks(self) -> dict[int, tuple[Tensor, Tensor]]:
        masks = {}
        for number, (layer, name) in enumerate(self._parameters_to_prune):
            mask = getattr(layer, f"{name}_mask", None)
            if mask is not None:
                hidden = getattr(layer, f"{name}_orig").detach()[mask == 0]
                masks[number] = (mask.cpu(), hidden.cpu())
        return masks

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Store plain parameters; training goes on with its masks."""
        if not self._make_pruning_permanent:
            return
        state = dict(checkpoint["state_dict"])
        _make_plain(state)
        checkpoint["state_dict"] = {
            name: value.cpu() if isinstance(value, Tensor) else value
            for name, value in state.items()
        }

    # How.

    def apply_pruning(self, amount: int | float) -> None:
        """Prune `amount` of what is left."""
        before = self._pruned_counts()
        if self._use_global_unstructured:
            accepted = inspect.signature(self.pruning_fn).parameters
            arguments = {"amount": amount, **self._method_arguments}
            prune.global_unstructured(
                self._parameters_to_prune,
                pruning_method=self.pruning_fn,
                **{key: value for key, value in arguments.items() if key in accepted},
            )
        else:
            for module, name in self._parameters_to_prune:
                self.pruning_fn(module, name=name, amount=amount)
        if self._verbose:
            self._tell(before, self._pruned_counts())

    def apply_lottery_ticket_hypothesis(self) -> None:
        """Set the weights back to how they began; the masks stay."""
        fresh: dict[nn.Module, Any] = {}
        for layer, first in self._first_layers.items():
            fresh[layer] = first
            if self._resample_parameters and hasattr(first, "reset_parameters"):
                fresh[layer] = deepcopy(first)
                fresh[layer].reset_parameters()
        for layer, name in self._parameters_to_prune:
            trained = getattr(layer, f"{name}_orig", None)
            if trained is None:
                trained = getattr(layer, name)
            began = getattr(fresh[layer], name).data
            trained.data = began.to(trained.device, copy=True)  # which training changes

    def make_pruning_permanent(self, module: nn.Module) -> None:
        """Replace masks and originals in `module` by plain parameters."""
        for layer in module.modules():
            for key, hook in list(layer._forward_pre_hooks.items()):
                if isinstance(hook, prune.BasePruningMethod):
                    hook.remove(layer)
                    del layer._forward_pre_hooks[key]

    def _pruned_counts(self) -> list[tuple[int, int]]:
        """Return zeros and size of the mask of each parameter."""
        masks = [
            getattr(layer, f"{name}_mask", None)
            for layer, name in self._parameters_to_prune
        ]
        return [
            (0, 1) if mask is None else (int((mask == 0).sum()), mask.numel())
            for mask in masks
        ]

    def _tell(
        self, before: list[tuple[int, int]], after: list[tuple[int, int]]
    ) -> None:
        size = sum(count for _, count in after)
        zeros = [sum(count for count, _ in counts) for counts in (before, after)]
        rank_zero_info(
            f"Pruned: {zeros[0] / size:.2%} -> {zeros[1]}/{size} ({zeros[1] / size:.2%})"
        )
        if self._verbose == 2:
            for (layer, name), old, new in zip(
                self._parameters_to_prune, before, after, strict=True
            ):
                rank_zero_info(
                    f"Pruned `{layer!r}.{name}`: {old[0]} -> {new[0]}/{new[1]} "
                    f"({new[0] / new[1]:.2%})"
                )


def _make_plain(state: dict[str, Any], but: Collection[str] = ()) -> None:
    """Replace masks and originals in a `state_dict` by parameters with zeros in them.

    Args:
        state: Is changed.
        but: Originals to leave there, with their masks.
    """
    for mask_name in [name for name in state if name.endswith("_mask")]:
        name = mask_name.removesuffix("_mask")
        if f"{name}_orig" in state.keys() - but:
            mask, original = state.pop(mask_name), state.pop(f"{name}_orig")
            state[name] = mask.to(original.dtype) * original


def _take_masks_off(module: nn.Module, state_dict: dict[str, Any], *_: Any) -> None:
    """Load a file with masks into a module that has none: it gets them when it trains."""
    _make_plain(state_dict, but=module.state_dict().keys())


def _of_epoch(value: Any, epoch: int) -> Any:
    return value(epoch) if callable(value) else value


def _needed(method: str, argument: str, value: int | None) -> int:
    if value is None:
        raise MisconfigurationException(
            f"`ModelPruning({method!r})` needs `{argument}`, which is missing"
        )
    return value


def _refused(given: str, accepted: str) -> MisconfigurationException:
    return MisconfigurationException(
        f"`ModelPruning({given})`: accepted are {accepted}"
    )
