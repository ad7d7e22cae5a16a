"""What a rule is: patterns of names, and what is to be said of what they fit."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Rule:
    """One reason, for all names that it explains.

    Attributes:
        names: Patterns, as in a shell.
        why: The reason, as a sentence without its full stop.
        instead: What to do, likewise; "" if there is nothing.
    """

    names: tuple[str, ...]
    why: str
    instead: str = ""

    @property
    def text(self) -> str:
        """The reason and what to do."""
        return f"{self.why}; {self.instead}" if self.instead else self.why


@dataclass(frozen=True)
class Behaviour(Rule):
    """One thing that is done differently; its names are uses, as `behaviour` says.

    Attributes:
        rows: The tests of the rows of `docs/compat.md` that it is about; none for what
            only the list of names has.
        only_with: Groups of patterns; of each group something must be used in the same
            program: in a file that is run, or in those that are there to be imported.
        not_with: Patterns; nothing that fits them may be used there.
    """

    rows: tuple[str, ...] = ()
    only_with: tuple[tuple[str, ...], ...] = ()
    not_with: tuple[str, ...] = ()

    def concerns(self, met: frozenset[str]) -> bool:
        """Tell whether a program can be concerned that meets these conditions."""
        return all(map(met.intersection, self.only_with)) and met.isdisjoint(
            self.not_with
        )


def fits(name: str, patterns: tuple[str, ...]) -> bool:
    """Tell whether one of the patterns is for this name."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def rule_for(name: str, rules: tuple[Rule, ...]) -> Rule | None:
    """Return the first rule with a pattern for this name, or None."""
    return next((rule for rule in rules if fits(name, rule.names)), None)
