"""Bringing what an older version has written to the form that is read here.

Ours: each step of `MIGRATIONS` brings what lies under our own key from one format to the
next. Lightning's: files of 1.6 and later have what is read here in the same places as
those of 2.6; older ones lack counters, and name some callbacks otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from lightgen_runtime.io.schema import OWN_FORMAT, OWN_KEY, VERSION_KEY

Own = dict[str, Any]


def _absent_keys_mean_nothing(own: Own) -> Own:
    """Format 2 only adds keys, each of which may be absent."""
    return own


MIGRATIONS: dict[int, Callable[[Own], Own]] = {1: _absent_keys_mean_nothing}
"""What brings our own key from the format before to the next, by the format before."""


def migrated(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return `checkpoint` as this version would have written it; itself, if it did.

    A newer format than this version's is left as it is: weights can be read from it.
    """
    own = checkpoint.get(OWN_KEY)
    if own is not None:
        own = dict(own)
        while own.setdefault("format", OWN_FORMAT) in MIGRATIONS:
            former = own["format"]
            own = {**MIGRATIONS[former](own), "format": former + 1}
        return {**checkpoint, OWN_KEY: own}
    version = _version(checkpoint)
    if version < (1, 9):
        checkpoint = _without_moment_in_keys(checkpoint)
    if version < (1, 6):
        checkpoint = _with_counters(checkpoint)
    return checkpoint


def _version(checkpoint: dict[str, Any]) -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)", str(checkpoint.get(VERSION_KEY)))
    return tuple(map(int, found.groups())) if found else (2, 0)


def _without_moment_in_keys(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Name `ModelCheckpoint`s as from 1.9 on, without `save_on_train_epoch_end`."""
    moment = r", 'save_on_train_epoch_end': (None|True|False)\}$"
    callbacks = {
        re.sub(moment, "}", key) if str(key).startswith("ModelCheckpoint") else key: v
        for key, v in (checkpoint.get("callbacks") or {}).items()
    }
    return {**checkpoint, "callbacks": callbacks} if callbacks else checkpoint


def _with_counters(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Say by loops what `epoch` said before 1.6: how many epochs were complete."""
    epochs, loops = checkpoint.get("epoch", 0), checkpoint.get("loops") or {}
    counts = dict.fromkeys(("ready", "started", "processed", "completed"), epochs)
    progress = {"epoch_progress": {"total": counts, "current": counts}}
    fit_loop = {**loops.get("fit_loop", {}), **progress}
    return {**checkpoint, "loops": {**loops, "fit_loop": fit_loop}}
