"""Trainer arguments from environment variables, for runs whose script is not to change."""

from __future__ import annotations

import inspect
import os
from ast import literal_eval
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import wraps
from typing import Any, TypeVar

from lightgen_runtime.utilities.nearest import did_you_mean
from lightgen_runtime.utilities.rank_zero import rank_zero_info, rank_zero_warn

F = TypeVar("F", bound=Callable[..., None])


def with_defaults_from_environment(init: F) -> F:
    """Let `PL_TRAINER_<NAME>` stand in for each argument of `__init__` not passed.

    A subclass reads variables of its own name, `PL_MYTRAINER_<NAME>`. Values are Python
    literals, else strings.

    Source: the variables' names and rules are Lightning's.
    """
    names = list(inspect.signature(init).parameters)[1:]

    @wraps(init)
    def init_with_defaults(self: Any, *args: Any, **kwargs: Any) -> None:
        prefix = f"PL_{type(self).__name__.upper()}_"
        found = _values(prefix, names)
        used = {name: value for name, value in found.items() if name not in kwargs}
        if used:
            rank_zero_info(
                f"`{type(self).__name__}` takes from the environment: "
                + ", ".join(f"{prefix}{n.upper()}={v!r}" for n, v in used.items())
            )
        init(self, *args, **{**used, **kwargs})

    return init_with_defaults  # type: ignore[return-value]


def _values(prefix: str, names: Iterable[str]) -> dict[str, Any]:
    """Return the arguments that the environment holds a value for."""
    by_variable = {f"{prefix}{name.upper()}": name for name in names}
    values: dict[str, Any] = {}
    for variable, text in os.environ.items():
        if not variable.startswith(prefix) or not text:
            continue
        if variable not in by_variable:
            rank_zero_warn(
                f"the environment variable {variable} is the name of no argument of the "
                f"trainer and is ignored.{did_you_mean(variable, by_variable)}"
            )
            continue
        value: Any = text
        with suppress(ValueError, SyntaxError):  # then it is meant as a string
            value = literal_eval(text)
        values[by_variable[variable]] = value
    return values
