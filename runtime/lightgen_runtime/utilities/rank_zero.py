"""Talking to the user from one process only.

`rank_zero_only.rank` is the only state: set from the launcher's environment at import
and again by the strategy once it knows better.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger("lightgen_runtime")


def print_to_stderr(text: str) -> None:
    """Show `text` to whoever watches the run; stdout is left to results."""
    # The stream is looked up at each call: it may have been redirected meanwhile.
    print(text, file=sys.stderr, flush=True)


class _StderrHandler(logging.Handler):
    """Show what is logged unless the program configured logging itself."""

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.getLogger().handlers:
            print_to_stderr(self.format(record))


if not logger.handlers:
    logger.addHandler(_StderrHandler())
    logger.setLevel(logging.INFO)


# Of torchrun, LSF, MPI's two families and SLURM; whoever stands nearer goes first.
_RANK_VARIABLES = (
    *("RANK", "JSM_NAMESPACE_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID"),
)


def _rank_from_environment() -> int:
    """Read the global rank that a launcher gave this process."""
    for name in _RANK_VARIABLES:
        value = os.environ.get(name, "")
        if value.isdigit():
            return int(value)
    return 0


class _RankZeroOnly:
    """Decorate a function so that only global rank zero runs it."""

    rank: int

    def __init__(self) -> None:
        self.rank = _rank_from_environment()

    def __call__(
        self, fn: Callable[P, T], default: T | None = None
    ) -> Callable[P, T | None]:
        """Return `fn`, doing nothing and returning `default` on every other rank."""

        @wraps(fn)
        def on_rank_zero(*args: P.args, **kwargs: P.kwargs) -> T | None:
            return fn(*args, **kwargs) if self.rank == 0 else default

        return on_rank_zero


rank_zero_only = _RankZeroOnly()


def rank_zero_debug(message: object, *args: object) -> None:
    """Log `message % args` at level DEBUG on rank zero."""
    if rank_zero_only.rank == 0:
        logger.debug(message, *args)


def rank_zero_info(message: object, *args: object) -> None:
    """Log `message % args` at level INFO on rank zero."""
    if rank_zero_only.rank == 0:
        logger.info(message, *args)


def rank_zero_warn(
    message: str, category: type[Warning] = UserWarning, stacklevel: int = 2
) -> None:
    """Warn on rank zero; Python's own filter shows each message once per place.

    Args:
        message: What is wrong and what to do about it.
        category: The class by which a user can silence it.
        stacklevel: Frames up to the line to blame; 2 is the caller of the caller.
    """
    if rank_zero_only.rank == 0:
        warnings.warn(message, category, stacklevel=stacklevel + 1)


def rank_zero_deprecation(message: str, stacklevel: int = 2) -> None:
    """Warn on rank zero that something will go away."""
    rank_zero_warn(message, DeprecationWarning, stacklevel + 1)


def rank_prefixed_message(message: str, rank: int | None) -> str:
    """Return the message with the rank before it, if there is one."""
    return message if rank is None else f"[rank: {rank}] {message}"


class LightningDeprecationWarning(DeprecationWarning):
    """For filters written for Lightning; this runtime issues plain deprecations."""


class WarningCache(set[str]):
    """Says each message once."""

    def warn(self, message: str, category: type[Warning] = UserWarning) -> None:
        """Warn on rank zero unless this message was said before."""
        if message not in self:
            self.add(message)
            rank_zero_warn(message, category)

    def deprecation(self, message: str) -> None:
        """Warn of what will go away unless this message was said before."""
        self.warn(message, DeprecationWarning)

    def info(self, message: str) -> None:
        """Log at level INFO unless this message was said before."""
        if message not in self:
            self.add(message)
            rank_zero_info(message)
