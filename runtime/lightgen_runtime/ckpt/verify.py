"""Whether a file is whole, and what it is good for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightgen_runtime.ckpt.contents import Contents, read
from lightgen_runtime.io.integrity import sha256_of
from lightgen_runtime.io.migrations import migrated
from lightgen_runtime.io.schema import OWN_FORMAT, progress_from_loops
from lightgen_runtime.io.store import MANIFEST, read_manifest
from lightgen_runtime.utilities.exceptions import (
    CheckpointFormatError,
    CheckpointNotFoundError,
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
    problems = _problems_with_manifest(path, listed) + _problems_inside(contents)
    good_for = ["weights"]
    if contents.is_resumable and not problems:
        good_for.append("resume")
    return {
        "path": str(path),
        "kind": contents.kind,
        "bytes": contents.size,
        "in_manifest": listed is not None,
        "sound": not problems,
        "problems": problems,
        "good_for": good_for,
    }


def _problems_with_manifest(path: Path, listed: dict[str, Any] | None) -> list[str]:
    if listed is None or path.is_dir():
        return []
    problems = []
    found: dict[str, Any] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    for name, value in found.items():
        if listed.get(name) not in (None, value):
            problems.append(
                f"{name} is {value}, and {MANIFEST} says {listed[name]}: the file was "
                "changed or replaced since it was saved"
            )
    return problems


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
    lines += [f"  {problem}" for problem in found["problems"]]
    uses = {"weights": "validate, test, predict", "resume": "go on training"}
    if found["good_for"]:
        lines.append(f"  good for: {', '.join(uses[use] for use in found['good_for'])}")
    return "\n".join(lines)
