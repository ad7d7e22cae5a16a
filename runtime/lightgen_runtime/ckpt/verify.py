"""Whether a file is whole, and what it is good for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightgen_runtime.ckpt.contents import Contents, read
from lightgen_runtime.io.migrations import migrated
from lightgen_runtime.io.schema import OWN_FORMAT, progress_from_loops
from lightgen_runtime.io.store import MANIFEST, entry_of, read_manifest
from lightgen_runtime.io.store import verify as damage_of
from lightgen_runtime.utilities.exceptions import (
    CheckpointFormatError,
    CheckpointNotFoundError,
)

# What a kill leaves between a file and its entry, and a copy of a folder, too.
_OLDER = (
    f"{MANIFEST} means another file of that name: this one was saved at another time"
)


def verify(path: Path) -> dict[str, Any]:
    """Return what was looked at and found; `sound` is whether all is well.

    Raises:
        CheckpointNotFoundError: There is no such file.
    """
    try:
        contents = read(path)
    except CheckpointNotFoundError:
        raise
    except CheckpointFormatError as error:
        problems = [str(error)]
        return {"path": str(path), "sound": False, "problems": problems, "good_for": []}
    listed = read_manifest(path.parent).get(path.name)
    damage = damage_of(path) if listed is not None else None
    problems = ([damage] if damage is not None else []) + _problems_inside(contents)
    means = listed is not None and listed["saved_at"] == entry_of({}, path)["saved_at"]
    good_for = ["weights"] if damage is None else []
    if contents.is_resumable and not problems:
        good_for.append("resume")
    return {
        "path": str(path),
        "kind": contents.kind,
        "bytes": contents.size,
        "in_manifest": means,
        "notes": [_OLDER] if listed is not None and not means else [],
        "sound": not problems,
        "problems": problems,
        "good_for": good_for,
    }


def _problems_inside(contents: Contents) -> list[str]:
    broken = [
        name
        for name, value in contents.weights.items()
        if isinstance(value, Tensor)
        and value.is_floating_point()
        and not torch.isfinite(value).all()
    ]
    problems = []
    if broken:
        problems.append(
            f"weights that are not finite: {', '.join(broken[:5])}"
            + (f" and {len(broken) - 5} more" if len(broken) > 5 else "")
        )
    written = contents.own.get("format", OWN_FORMAT)
    if written > OWN_FORMAT:
        problems.append(
            f"format {written} is newer than the {OWN_FORMAT} that is read here; update "
            "lightgen to go on from it"
        )
    elif contents.is_resumable and not contents.own:
        try:
            progress_from_loops(migrated(contents.checkpoint))
        except (AttributeError, LookupError, TypeError) as error:
            problems.append(f"its counters cannot be read: {error!r}")
    return problems


def rendered(found: dict[str, Any]) -> str:
    """Return the findings as lines for a terminal."""
    lines = [f"{found['path']}: {'sound' if found['sound'] else 'NOT sound'}"]
    if "kind" in found:
        manifest = "agrees with" if found["sound"] else "is compared with"
        listed = f"{manifest} {MANIFEST}" if found["in_manifest"] else "in no manifest"
        lines.append(f"  {found['kind']}; {found['bytes']} bytes; {listed}")
    lines += [f"  {line}" for line in (*found["problems"], *found.get("notes", ()))]
    uses = {"weights": "validate, test, predict", "resume": "go on training"}
    if found["good_for"]:
        lines.append(f"  good for: {', '.join(uses[use] for use in found['good_for'])}")
    return "\n".join(lines)
