"""The name that a mistyped one was most likely meant to be."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: object, names: Iterable[object], cutoff: float = 0.6) -> str | None:
    """Return the name that is nearest to a mistyped one, or None if none is near.

    Args:
        name: What was given.
        names: What is accepted.
        cutoff: How similar the two must be, from 0 to 1.

    Example:
        >>> nearest("fitt", ["fit", "test"])
        'fit'
    """
    found = get_close_matches(str(name), [str(n) for n in names], n=1, cutoff=cutoff)
    return found[0] if found else None


def did_you_mean(name: object, names: Iterable[object]) -> str:
    """Return the question to end a message with, after a space; nothing if none is near.

    Arguments are those of `nearest`.

    Example:
        >>> did_you_mean("fitt", ["fit", "test"])
        " Did you mean 'fit'?"
    """
    near = nearest(name, names)
    return "" if near is None else f" Did you mean {near!r}?"
