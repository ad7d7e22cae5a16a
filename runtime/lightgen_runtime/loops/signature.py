"""Calling user steps with as many arguments as they declare."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from lightgen_runtime.utilities.exceptions import MisconfigurationException


def positional(
    method: Callable[..., Any], offered: int, form: str
) -> Callable[..., Any]:
    """Return `method` as something that takes `offered` positional arguments.

    Args:
        method: A bound step method; it may declare fewer arguments, in the same order.
        offered: How many the loop passes.
        form: The full form, for the error message.

    Raises:
        MisconfigurationException: The method requires more than is offered, or in another
            way.
    """
    try:
        parameters = list(inspect.signature(method).parameters.values())
    except (TypeError, ValueError):  # e.g. a mock or a compiled callable
        return method
    _check_parameters(parameters, form)
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return method
    plain = [
        p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    required = sum(p.default is p.empty for p in plain)
    if required > offered:
        raise MisconfigurationException(
            f"`{form.partition('(')[0]}` requires {required} arguments; it is called as "
            f"`{form}`"
        )
    taken = min(len(plain), offered)
    if taken == offered:
        return method
    return lambda *args: method(*args[:taken])


def _check_parameters(parameters: list[inspect.Parameter], form: str) -> None:
    name = form.partition("(")[0]
    if any(p.name == "dataloader_iter" for p in parameters):
        raise MisconfigurationException(
            f"`{name}(dataloader_iter)`: a step is given its batch, not the iterator of all, "
            "because what follows a step depends on which batch it was and whether it was "
            f"the last. Write `{form}`; to fetch batches ahead, let the loader do it "
            "(`num_workers`, `prefetch_factor`, or an iterable of your own around it)."
        )
    by_name = [
        p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty
    ]
    if not by_name and [p.kind for p in parameters] == [inspect.Parameter.VAR_KEYWORD]:
        by_name = [f"**{parameters[0].name}"]
    if by_name:
        raise MisconfigurationException(
            f"`{name}` takes {', '.join(by_name)} by name only; it is called as `{form}`, "
            "by position"
        )


def check_takes_loader_number(hook: Callable[..., Any], before_it: int) -> None:
    """Make sure that a batch hook can be told which of several loaders a batch is from.

    Args:
        hook: The bound hook.
        before_it: Number of arguments before `dataloader_idx`.

    Raises:
        MisconfigurationException: It takes no further argument.
    """
    try:
        inspect.signature(hook).bind(*range(before_it + 1))
    except ValueError:  # no signature to look at
        return
    except TypeError as error:
        name = getattr(hook, "__qualname__", repr(hook))
        raise MisconfigurationException(
            f"`{name}` takes no `dataloader_idx`, and there are several loaders. Add it as "
            "the last argument: `dataloader_idx=0`."
        ) from error
