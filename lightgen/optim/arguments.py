"""What constructors take, as data: one argument, its kind and its limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal[
    "number",  # 0.1
    "integer",  # 3
    "flag",  # true, false
    "choice",  # one of `choices`
    "numbers",  # 0.9:0.999, exactly `count`
    "duration",  # 5%, 500st, 3ep: counted in the scheduler's own steps
    "durations",  # 30ep:60ep
    "function",  # the name of a function
]
REQUIRED: Final = "required"
"""The default of an argument that has none."""


@dataclass(frozen=True)
class Argument:
    """One argument of a constructor.

    Attributes:
        name: As torch calls it.
        kind: What is accepted.
        default: Torch's, or `REQUIRED`.
        least: Smallest value allowed; of each part, for several numbers.
        most: Largest value allowed.
        below: Value that is already too large.
        above: Value that is still too small.
        choices: What a choice may be.
        count: How many numbers; 0 for any.
        none: Whether None is accepted.
    """

    name: str
    kind: Kind = "number"
    default: object = REQUIRED
    least: float | None = None
    most: float | None = None
    below: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()
    count: int = 0
    none: bool = False

    @property
    def accepted(self) -> str:
        """What may be given, in words."""
        limits = [
            f"{word} {limit:g}"
            for word, limit in (
                ("at least", self.least),
                ("above", self.above),
                ("at most", self.most),
                ("below", self.below),
            )
            if limit is not None
        ]
        range_ = f" {' and '.join(limits)}" if limits else ""
        words = {
            "number": f"a number{range_}",
            "integer": f"a whole number{range_}",
            "flag": "true or false",
            "choice": " or ".join(self.choices),
            "numbers": f"{self.count} numbers{range_}, as in 0.9:0.999",
            "duration": "a duration such as 5%, 500st or 3ep",
            "durations": "durations such as 30ep:60ep",
            "function": "the name of a function that your module can see",
        }[self.kind]
        return f"{words}, or none" if self.none else words


def number(
    name: str,
    default: object = REQUIRED,
    *,
    least: float | None = None,
    most: float | None = None,
    below: float | None = None,
    above: float | None = None,
) -> Argument:
    """Describe a number."""
    return Argument(name, "number", default, least, most, below, above)


def integer(
    name: str, default: object = REQUIRED, *, least: float | None = None
) -> Argument:
    """Describe a whole number; a default of None is accepted too."""
    none = default is None
    return Argument(name, "integer", default, least, none=none)


def flag(name: str, default: object = False) -> Argument:
    """Describe a yes or no; a default of None is accepted too."""
    return Argument(name, "flag", default, none=default is None)


def choice(name: str, default: object, *choices: str) -> Argument:
    """Describe one of some words; a default of None is accepted too."""
    return Argument(name, "choice", default, choices=choices, none=default is None)


def rate(default: float) -> Argument:
    """Describe a learning rate."""
    return number("lr", default, least=0)


def decay(default: float = 0) -> Argument:
    """Describe a weight decay."""
    return number("weight_decay", default, least=0)


def eps(default: float = 1e-8) -> Argument:
    """Describe a term that keeps a division possible."""
    return number("eps", default, least=0)


def factor(name: str, default: object) -> Argument:
    """Describe a part of a whole."""
    return number(name, default, least=0, most=1)
