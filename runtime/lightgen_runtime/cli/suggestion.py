"""The nearest name to a mistyped one."""

from __future__ import annotations

from collections.abc import Iterable

from lightgen_runtime.utilities.nearest import nearest


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Return `; did you mean ...?` to end a message with, or nothing if none is near."""
    near = nearest(name, candidates)
    return f"; did you mean `{near}`?" if near else ""


def nearest_key(key: str, keys: Iterable[str]) -> str | None:
    """Return the dotted key that `key` was most likely meant to be.

    A near name in the same group comes first, then the same name in another group, as
    in `lr` for `model.lr`, then a near name in another group.
    """
    keys = list(keys)
    leaf = _leaf(key)
    prefix = key.removesuffix(leaf)
    if sibling := nearest(leaf, names_beside(key, keys)):
        return prefix + sibling
    leaves = [_leaf(other) for other in keys]
    near = nearest(leaf, leaves, cutoff=0.7)
    return keys[leaves.index(near)] if near else None


def names_beside(key: str, keys: Iterable[str]) -> list[str]:
    """Return the names that `keys` have at the place of the last part of `key`."""
    prefix = key.removesuffix(_leaf(key))
    names = [
        other.removeprefix(prefix).partition(".")[0]
        for other in keys
        if other.startswith(prefix)
    ]
    return list(dict.fromkeys(names))


def _leaf(key: str) -> str:
    return key.rpartition(".")[2]
