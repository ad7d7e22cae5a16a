"""Objects of the package that this one is used like."""

from __future__ import annotations


def import_hint(given: object) -> str:
    """Return what to add to an error about an object that may be Lightning's."""
    homes = {base.__module__.partition(".")[0] for base in type(given).__mro__}
    if homes.isdisjoint({"lightning", "pytorch_lightning"}):
        return ""
    return " of lightgen_runtime; this one is Lightning's: change its import as well"
