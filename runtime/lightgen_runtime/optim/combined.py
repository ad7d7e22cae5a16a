"""Several optimizers that step as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer

from lightgen_runtime.utilities.exceptions import (
    CheckpointMismatchError,
    MisconfigurationException,
)


class CombinedOptimizer(Optimizer):
    """Steps several optimizers together, each with parameters of its own.

    To schedulers, gradient clipping and callbacks it is one optimizer with the parameter
    groups of all: the very dictionaries, so that a rate set here is set there.

    Args:
        optimizers: What steps, in this order.

    Raises:
        MisconfigurationException: One needs a closure, or two share a parameter.

    Example:
        >>> weight = torch.nn.Parameter(torch.eye(2))
        >>> bias = torch.nn.Parameter(torch.zeros(2))
        >>> optimizer = CombinedOptimizer(
        ...     torch.optim.Muon([weight], lr=0.02), torch.optim.AdamW([bias], lr=1e-3)
        ... )
        >>> [group["lr"] for group in optimizer.param_groups]
        [0.02, 0.001]
    """

    def __init__(self, *optimizers: Optimizer) -> None:
        self.optimizers = optimizers
        self._complete = False
        groups = [group for each in optimizers for group in each.param_groups]
        parameters = [p for group in groups for p in group["params"]]
        if len({id(p) for p in parameters}) < len(parameters):
            raise MisconfigurationException(
                "two optimizers of a `CombinedOptimizer` have a parameter in common; each "
                "parameter belongs to one of them"
            )
        if any(isinstance(each, torch.optim.LBFGS) for each in optimizers):
            raise MisconfigurationException(
                "LBFGS evaluates the loss by itself and cannot step together with others"
            )
        super().__init__(parameters, {})
        self.param_groups = groups
        self._complete = True

    @property  # type: ignore[override]
    def state(self) -> dict[Any, Any]:
        """The state of every parameter, of all optimizers."""
        return {key: value for o in self.optimizers for key, value in o.state.items()}

    @state.setter
    def state(self, value: Any) -> None:
        """Each optimizer keeps its own; the base class's constructor sets an empty one."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step every optimizer once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refuse a group that none of the optimizers would step.

        Raises:
            MisconfigurationException: Always, once the optimizer is made.
        """
        if self._complete:
            raise MisconfigurationException(
                "`CombinedOptimizer.add_param_group`: it does not know which of its "
                "optimizers is to step the new group. Give it all parameters at the start, "
                "also those that are frozen still, and let them require gradients when it "
                "is their turn, in a callback with `BaseFinetuning.make_trainable(module)`."
            )
        super().add_param_group(param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of every optimizer's parameters."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of each optimizer, in order, and all groups together."""
        states = [optimizer.state_dict() for optimizer in self.optimizers]
        return {
            "state": {},
            "param_groups": [
                group for state in states for group in state["param_groups"]
            ],
            "optimizers": states,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` returned.

        Raises:
            CheckpointMismatchError: It is of other optimizers.
        """
        states = state_dict.get("optimizers", [])
        if len(states) != len(self.optimizers):
            raise CheckpointMismatchError(
                f"the checkpoint has the state of {len(states)} combined optimizers, and "
                f"there are {len(self.optimizers)}"
            )
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)
        # Loading replaces each optimizer's groups by new dictionaries.
        self.param_groups = [g for o in self.optimizers for g in o.param_groups]
