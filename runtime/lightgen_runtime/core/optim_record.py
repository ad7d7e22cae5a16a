"""What a fit's optimizers and schedulers were configured to be, before anything moved.

Rates change as a schedule goes on, so their current values do not tell what the code has
asked for. This is noted when the fit begins, and goes into each checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from lightgen_runtime.io.schema import plain
from lightgen_runtime.utilities.compiled_names import plain_name
from lightgen_runtime.utilities.exceptions import MisconfigurationException

_START_RATE = "initial_lr"  # a scheduler keeps the configured rate there


class OptimRecord:
    """The configuration of optimizers and schedulers that have just been made.

    Args:
        optimizers: The optimizers.
        schedulers: The schedulers.
        module: Whose parameters they have.
    """

    def __init__(
        self, optimizers: Sequence[Optimizer], schedulers: Sequence[Any], module: Any
    ) -> None:
        names = {id(p): plain_name(name) for name, p in module.named_parameters()}
        self._groups = [
            [_group(group, names) for group in optimizer.param_groups]
            for optimizer in optimizers
        ]
        # With the scheduler, so that its number is not given to another one.
        self._settings = {id(each): (each, _settings(each)) for each in schedulers}

    def state_dict(
        self, optimizers: Sequence[Optimizer], schedulers: Sequence[Any]
    ) -> dict[str, list[dict[str, Any]]]:
        """Return the record as plain data.

        Args:
            optimizers: Those that it was made of. Groups added since are not in it.
            schedulers: Those in use now; of another one than at the start only the class
                is known.
        """
        unknown = (None, None)
        return {
            "optimizers": [
                {"class": class_name(optimizer), "groups": groups}
                for optimizer, groups in zip(optimizers, self._groups, strict=True)
            ],
            "schedulers": [
                {
                    "class": class_name(each),
                    "settings": self._settings.get(id(each), unknown)[1],
                }
                for each in schedulers
            ],
        }


def class_name(made: Any) -> str:
    """Return the class of an optimizer or scheduler, with those that it combines."""
    name, parts = type(made).__name__, getattr(made, "optimizers", None)
    if not isinstance(parts, tuple):
        return name
    return f"{name}({', '.join(map(class_name, parts))})"


def _group(group: Mapping[str, Any], names: Mapping[int, str]) -> dict[str, Any]:
    options = {}
    for name, value in group.items():
        if name in ("params", _START_RATE):
            continue
        if name == "lr":
            value = group.get(_START_RATE, value)
        try:
            options[name] = plain(_number(value), name)
        except MisconfigurationException:
            continue  # an object: nothing to compare
    parameters = [names.get(id(parameter), "") for parameter in group["params"]]
    return {"options": options, "parameters": parameters}


def _settings(scheduler: Any) -> Any:
    try:
        return plain(scheduler.state_dict(), "scheduler")
    except MisconfigurationException:
        return None


def _number(value: Any) -> Any:
    """Return a rate as a number, also one that is a tensor and will be changed in place."""
    single = isinstance(value, Tensor) and value.numel() == 1
    return value.item() if single else value
