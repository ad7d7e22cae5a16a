"""What there is to choose from: optimizers and schedulers by name.

Nothing here imports torch: a test holds the data against the installed one, and
`lightgen doctor` reports a difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, TypeVar

from lightgen.errors import UnknownOptimizerError, did_you_mean, listing
from lightgen.optim import optimizers, schedulers
from lightgen.optim.entries import Entry, Optimizer, Scheduler

TORCH: Final = "2.13"
"""The release of torch that the data describes."""

OPTIMIZERS: Final[Mapping[str, Optimizer]] = MappingProxyType(
    {entry.name: entry for entry in optimizers.ALL}
)
SCHEDULERS: Final[Mapping[str, Scheduler]] = MappingProxyType(
    {entry.name: entry for entry in schedulers.ALL}
)
BY_PATH: Final[Mapping[str, Entry]] = MappingProxyType(
    {entry.path: entry for entry in (*optimizers.ALL, *schedulers.ALL)}
)
"""What each class of torch's takes; the names of one class differ in presets only."""
IMPLIED: Final = frozenset({"params", "optimizer", "last_epoch"})
"""Arguments that no entry lists."""

E = TypeVar("E", bound=Entry)


def find_optimizer(name: str, where: str) -> Optimizer:
    """Return an optimizer by its name or its class's, in any case.

    Raises:
        UnknownOptimizerError: There is none.
    """
    return _find(name, OPTIMIZERS, "optimizer", where)


def find_scheduler(name: str, where: str) -> Scheduler:
    """Return a scheduler by its name, an alias or its class's name, in any case.

    Raises:
        UnknownOptimizerError: There is none.
    """
    return _find(name, SCHEDULERS, "scheduler", where)


def find_entry(name: str) -> Entry | None:
    """Return an optimizer or a scheduler by any name that a user may write."""
    return _look_up(name, OPTIMIZERS) or _look_up(name, SCHEDULERS)


def _look_up(name: str, table: Mapping[str, E]) -> E | None:
    lowered = name.lower()
    classes = {e.class_name.lower(): e for e in _plain(table)}
    aliases = {a: e for e in table.values() for a in getattr(e, "aliases", ())}
    return table.get(lowered) or classes.get(lowered) or aliases.get(lowered)


def _plain(table: Mapping[str, E]) -> list[E]:
    """Return the entries without a preset, which a class's own name means."""
    return [entry for entry in table.values() if not getattr(entry, "preset", ())]


def _find(name: str, table: Mapping[str, E], kind: str, where: str) -> E:
    found = _look_up(name, table)
    if found is not None:
        return found
    known = [*(entry.class_name for entry in _plain(table)), *table]
    raise UnknownOptimizerError(
        f"torch has no {kind} `{name}`",
        where=where,
        accepted=listing(table),
        todo=did_you_mean(name, known, "see: lightgen optimizers"),
    )
