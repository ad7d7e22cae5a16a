"""User scripts give the same with Lightning and with only their import lines changed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SCRIPTS = HERE / "scripts"
REFERENCE, OURS = "lightning", "lightgen_runtime"

# What a script shows in another way with the runtime, and why. Everything else is equal.
KNOWN_DIFFERENCES: dict[str, str] = {}


def differences(theirs: Any, ours: Any, where: str = "") -> Iterator[str]:
    """Name the places where two results differ.

    Everything has to be equal to the last bit, except what stands under `metrics`: there
    the reference rounds to single precision (see `test_precision_of_logged_numbers`).
    """
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in sorted(theirs.keys() | ours.keys()):
            if key not in theirs or key not in ours:
                only = REFERENCE if key in theirs else OURS
                yield f"{where}/{key}: only with {only}"
            else:
                yield from differences(theirs[key], ours[key], f"{where}/{key}")
    elif isinstance(theirs, list) and isinstance(ours, list):
        if len(theirs) != len(ours):
            yield f"{where}: {theirs} with {REFERENCE}, {ours} with {OURS}"
            return
        for index, pair in enumerate(zip(theirs, ours, strict=True)):
            yield from differences(*pair, f"{where}/{index}")
    elif not _equal(theirs, ours, "/metrics/" in where):
        yield f"{where}: {theirs!r} with {REFERENCE}, {ours!r} with {OURS}"


def _equal(theirs: Any, ours: Any, rounded: bool) -> bool:
    if isinstance(theirs, float) and isinstance(ours, float):
        if math.isnan(theirs):
            return math.isnan(ours)
        tolerance = 1e-5 if rounded else 0.0
        return math.isclose(theirs, ours, rel_tol=tolerance, abs_tol=tolerance / 100)
    return type(theirs) is type(ours) and bool(theirs == ours)
