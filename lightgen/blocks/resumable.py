"""Which checkpoints a new optimizer block can go on from, by the manifests beside them.

What is said here is what the runtime does on a resume: an optimizer of another class starts
anew, a scheduler of another class begins where it would be, other parameter groups are an
error. No checkpoint is opened.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lightgen.optim.schedule import Track
from lightgen.optim.spec import OptimizerSpec, OptimSpec

_MANIFESTS = "runs/*/checkpoints/manifest.json"
_READ = ("optimizers", "schedulers", "weights_only")

Resumes = Literal["fully", "without optimizer", "not"]
_SAID: dict[Resumes, tuple[str, str]] = {
    "fully": ("stays resumable", "stay resumable"),
    "without optimizer": (
        "resumes with weights and counters only",
        "resume with weights and counters only",
    ),
    "not": (
        "cannot be resumed, only begun from (train --resume weights)",
        "cannot be resumed, only begun from (train --resume weights)",
    ),
}


@dataclass(frozen=True)
class Prospect:
    """What becomes of one checkpoint.

    Attributes:
        path: The file, from the project's root.
        resumes: How far a fit can go on from it.
        why: What changes; "" if nothing does.
    """

    path: str
    resumes: Resumes
    why: str = ""

    @property
    def run(self) -> str:
        """The run's folder."""
        return "/".join(self.path.split("/")[:2])


def prospects(root: Path, spec: OptimSpec, former: OptimSpec | None) -> list[Prospect]:
    """Return what becomes of the project's checkpoints under another specification.

    Files that hold weights only, or whose manifest does not say what trained them, are
    left out.

    Args:
        root: The project.
        spec: The new specification.
        former: The one before; None if there was none.
    """
    found = []
    for path, entry in _entries(root):
        known = [each["class"] for each in entry["optimizers"]] + entry["schedulers"]
        if not entry["weights_only"] and entry["optimizers"] and None not in known:
            resumes, why = _judge(entry, spec, former)
            found.append(Prospect(path, resumes, why))
    return found


def sentences(found: list[Prospect]) -> list[str]:
    """Return a line for each fate, the files counted and their runs named."""
    fates: dict[tuple[Resumes, str], list[Prospect]] = {}
    for each in found:
        fates.setdefault((each.resumes, each.why), []).append(each)
    lines = []
    for (resumes, why), those in sorted(fates.items()):
        said = _SAID[resumes][len(those) > 1]
        runs = ", ".join(sorted({each.run for each in those}))
        number = f"{len(those)} checkpoint{'s' * (len(those) > 1)}"
        lines.append(f"{number} ({runs}) {said}{f': {why}' if why else ''}")
    return lines


def _entries(root: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for manifest in sorted(root.glob(_MANIFESTS)):
        folder = manifest.parent.relative_to(root).as_posix()
        try:
            content = json.loads(manifest.read_text(encoding="utf-8"))
            entries = [
                (f"{folder}/{name}", {key: entry[key] for key in _READ})
                for name, entry in content["checkpoints"].items()
            ]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # damaged, or of another version: the runtime makes it anew
        yield from entries


def _judge(
    entry: Mapping[str, Any], spec: OptimSpec, former: OptimSpec | None
) -> tuple[Resumes, str]:
    had, have = [each["class"] for each in entry["optimizers"]], _classes(spec)
    if len(had) != len(have):
        return "not", f"{len(had)} optimizer(s) then, {len(have)} now"
    if had != have:
        changed = [f"from {a} to {b}" for a, b in zip(had, have, strict=True) if a != b]
        return "without optimizer", f"the optimizer changes {', '.join(changed)}"
    groups = [each["groups"] for each in entry["optimizers"]]
    if not _same_groups(groups, spec, former):
        return "not", "the parameter groups change"
    if entry["schedulers"] != (now := _schedulers(spec)):
        before, after = (
            ", ".join(each) or "none" for each in (entry["schedulers"], now)
        )
        return "fully", f"the schedule changes from {before} to {after}"
    return "fully", ""


def _classes(spec: OptimSpec) -> list[str]:
    names = [_class(each) for each in spec.optimizers]
    if spec.labelled or len(names) == 1:
        return names
    return [f"CombinedOptimizer({', '.join(names)})"]


def _class(optimizer: OptimizerSpec) -> str:
    return optimizer.entry.path.rpartition(".")[2]


def _same_groups(had: list[int], spec: OptimSpec, former: OptimSpec | None) -> bool:
    """Tell whether groups are as before; how many there are, the model decides as well."""
    if spec.groups == type(spec.groups)():
        return had == ([1] * len(had) if spec.labelled else [len(spec.optimizers)])
    return former is not None and _division(spec) == _division(former) and max(had) > 1


def _division(spec: OptimSpec) -> object:
    selected = [(each.label, each.select) for each in spec.optimizers]
    return spec.groups, spec.freeze, selected


def _schedulers(spec: OptimSpec) -> list[str]:
    labels = [each.label for each in spec.optimizers] if spec.labelled else [""]
    return [_scheduler(track) for label in labels for track in spec.schedule(label)]


def _scheduler(track: Track) -> str:
    if len(track.parts) > 1:
        return "SequentialLR"
    (stages,) = track.parts
    if len(stages) > 1:
        return "ChainedScheduler"
    return stages[0].entry.path.rpartition(".")[2]
