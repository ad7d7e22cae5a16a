"""What there is to choose from: optimizers and schedulers by name.

Nothing here imports torch: a test holds the data against the installed one, and
`lightgen doctor` reports a difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, TypeVar

from lightgen.errors import UnknownOptimizerError, listing, nearest
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
    aliases = {a: e.name for e in SCHEDULERS.values() for a in e.aliases}
    return _find(aliases.get(name.lower(), name), SCHEDULERS, "scheduler", where)


def _find(name: str, table: Mapping[str, E], kind: str, where: str) -> E:
    # A class's own name means the entry without a preset.
    plain = [entry for entry in table.values() if not getattr(entry, "preset", ())]
    classes = {entry.class_name.lower(): entry for entry in plain}
    lowered = name.lower()
    found = table.get(lowered) or classes.get(lowered)
    if found is not None:
        return found
    near = nearest(name, [*(entry.class_name for entry in plain), *table])
    raise UnknownOptimizerError(
        f"torch has no {kind} `{name}`",
        where=where,
        accepted=listing(table),
        todo=f"did you mean `{near}`?" if near else "see: lightgen optimizers",
    )
