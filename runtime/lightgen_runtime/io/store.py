"""A folder of checkpoints and its manifest: what is there, and which of it can be used.

The manifest lists each file's size, checksum and meaning. It follows the files: an entry is
written after its file and dropped after it, and whatever a kill left out is read from the
files again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from lightgen_runtime.io import location
from lightgen_runtime.io.integrity import content_of, damage_in, sha256_of
from lightgen_runtime.io.location import AnyPath
from lightgen_runtime.io.schema import OWN_KEY, record_in
from lightgen_runtime.utilities.exceptions import CheckpointNotFoundError
from lightgen_runtime.utilities.file_lock import folder_lock
from lightgen_runtime.utilities.rank_zero import rank_zero_warn

MANIFEST = "manifest.json"
MANIFEST_FORMAT = 1
EXTENSION = ".ckpt"
_NONE = type(None)
_PARTS: dict[str, tuple[type, ...]] = {
    "bytes": (int,),
    "sha256": (str, _NONE),
    "saved_at": (str,),
    "weights_only": (bool,),
    "kept_by": (str, _NONE),
    "role": (str, _NONE),
    "score": (int, float, str, _NONE),
}
_OTHER_PARTS: dict[str, tuple[type, ...]] = {
    "epoch": (int, _NONE),
    "step": (int, _NONE),
    "run": (str, _NONE),
    "optimizers": (list, _NONE),
    "schedulers": (list, _NONE),
    "jobs": (list, _NONE),
}

Entry = dict[str, Any]


def read_manifest(folder: AnyPath) -> dict[str, Entry]:
    """Return the manifest's entries by file name; none where there is no manifest."""
    try:
        return _read(folder) or {}
    except OSError:  # may not be read: the files say the same
        return {}


def list_file(path: AnyPath, entry: Entry) -> None:
    """Enter a file that was just written.

    Args:
        path: The file.
        entry: From `entry_of`.
    """
    folder, name = location.split(path)
    _change(folder, {name: entry})


def unlist_file(path: AnyPath) -> None:
    """Drop the entry of a file that was just removed."""
    folder, name = location.split(path)
    if name in read_manifest(folder):
        _change(folder, {name: None})


def entry_of(
    checkpoint: Mapping[str, Any], path: AnyPath, sha256: str | None = None
) -> Entry:
    """Return what the manifest says of a file.

    Args:
        checkpoint: The file's content.
        path: The file or folder.
        sha256: Of a file's bytes; None if nobody has looked since they were written.
    """
    own = checkpoint.get(OWN_KEY)
    own = own if isinstance(own, Mapping) else {}
    record = record_in(checkpoint)
    copied = record["name"] not in (None, location.split(path)[1])
    if copied and not location.is_link(path):
        record = record_in({})  # somebody else's, who has put it there
    states = _list_at("optimizer_states", checkpoint)
    schedulers = _list_at("lr_schedulers", checkpoint)
    unknown: list[dict[str, Any]] = [{}]
    jobs = _list_at("jobs", record)
    return {
        "bytes": location.size_of(path),
        "sha256": sha256,
        "saved_at": _saved_at(path),
        "epoch": _if_a(int, checkpoint.get("epoch")),
        "step": _if_a(int, checkpoint.get("global_step")),
        "weights_only": "optimizer_states" not in checkpoint,
        "optimizers": [
            {"class": _class_in(named), "groups": _group_count(state)}
            for named, state in zip(
                _list_at("optimizers", own) or unknown * len(states),
                states,
                strict=False,
            )
        ],
        "schedulers": [
            _class_in(named)
            for named in _list_at("schedulers", own) or unknown * len(schedulers)
        ],
        "kept_by": _if_a(str, record["kept_by"]),
        "score": _as_number(record["score"]),
        "role": _if_a(str, record["role"]),
        "run": _if_a(str, record["run"]),
        # Left out where it is not known, as from entries of before there was such a part.
        **({"jobs": [mark for mark in jobs if isinstance(mark, str)]} if jobs else {}),
    }


# Anybody's files may lie in the folder, and what is in them be of any kind.
def _list_at(key: str, owner: Mapping[str, Any]) -> list[Any]:
    value = owner.get(key)
    return list(value) if isinstance(value, (list, tuple)) else []


def _if_a(kind: type, value: Any) -> Any:
    return value if isinstance(value, kind) else None


def _class_in(named: object) -> Any:
    return _if_a(str, named.get("class")) if isinstance(named, Mapping) else None


def score_of(entry: Entry) -> float | None:
    """Return an entry's score as a number; JSON has no infinite ones."""
    return None if entry.get("score") is None else float(entry["score"])


def reconcile(folder: AnyPath, extension: str = EXTENSION) -> dict[str, Entry]:
    """Make the manifest list what is in `folder`, and return its entries, oldest first.

    Files that it does not know, or that have been replaced since, are read; what is no
    checkpoint stays unlisted. Entries without a file go. Where nothing may be written, the
    entries are returned all the same.

    Args:
        folder: The folder.
        extension: Of the files to look at, beside those that are listed.
    """
    listed = read_manifest(folder)
    there = [
        name
        for name in location.names_in(folder, folders=not location.is_remote(folder))
        if name.endswith(extension) or name in listed
    ]
    found: dict[str, Entry] = {}
    for name in there:
        try:
            entry = _current_entry(location.join(folder, name), listed.get(name))
        except OSError:  # gone meanwhile, a link to nothing, or not to be read
            continue
        if entry is not None:
            found[name] = entry
    names = {*found, *listed}
    changes = {n: found.get(n) for n in names if found.get(n) != listed.get(n)}
    if changes:
        try:
            _change(folder, changes)
        except OSError as error:
            rank_zero_warn(
                f"`{location.join(folder, MANIFEST)}` stays as it is: {error}"
            )
    return dict(sorted(found.items(), key=lambda item: item[1]["saved_at"]))


def verify(path: AnyPath) -> str | None:
    """Check a checkpoint completely.

    Args:
        path: The file, or the folder of `DistributedCheckpointIO`.

    Returns:
        What is wrong with it, or None if nothing is.

    Raises:
        CheckpointNotFoundError: There is nothing at `path`.
        OSError: It may not be read.
    """
    if not location.exists(path):
        raise CheckpointNotFoundError(f"no checkpoint at `{path}`")
    folder, name = location.split(path)
    entry = read_manifest(folder).get(name)
    with location.local_copy(path) as file:
        if file.is_dir():
            return damage_in(file)
        size = file.stat().st_size
        if size == 0:
            return "it is empty (0 bytes)"
        if (damage := damage_in(file)) is not None:
            return damage
        if content_of(file) is None:
            if entry is not None and size < entry["bytes"]:
                return f"it has {size} of {entry['bytes']} bytes"
            return "it is truncated, damaged or not a checkpoint of a run"
        # A file replaced since is not the one that the manifest means; it has passed above.
        if entry is None or entry["saved_at"] != _saved_at(path):
            return None
        if entry["sha256"] not in (None, sha256_of(file)):
            return f"its content is not what `{MANIFEST}` says was written"
    return None


def newest_valid(
    folder: AnyPath,
    weights_only: bool = False,
    but: Collection[str] = (),
    extension: str = EXTENSION,
) -> str | None:
    """Return the path of the newest checkpoint in `folder` that is not damaged.

    Reads each one that it looks at completely.

    Args:
        folder: Where to look.
        weights_only: Accept files that a fit cannot go on from.
        but: Names to leave out.
        extension: Of the files.
    """
    try:
        entries = reconcile(folder, extension)
    except OSError:  # the folder itself may not be read
        return None
    for name, entry in reversed(entries.items()):
        if name in but or (entry["weights_only"] and not weights_only):
            continue
        path = location.join(folder, name)
        with suppress(OSError):
            if verify(path) is None:
                return path
    return None


def _saved_at(path: AnyPath) -> str:
    return location.modified_at(path).isoformat()


def _group_count(state: object) -> int | None:
    """Return how many parameter groups a state has; None for one of an unknown kind."""
    groups = state.get("param_groups") if isinstance(state, Mapping) else None
    return len(groups) if isinstance(groups, list) else None


def _as_number(score: object) -> float | str | None:
    if not isinstance(score, int | float):
        return None
    return float(score) if math.isfinite(score) else str(float(score))


def _current_entry(path: AnyPath, listed: Entry | None) -> Entry | None:
    """Return the entry of the file that is at `path` now; None for no checkpoint."""
    unchanged = (
        listed is not None
        and listed["bytes"] == location.size_of(path)
        and listed["saved_at"] == _saved_at(path)
    )
    if unchanged:
        return listed
    with location.local_copy(path) as file:
        content = content_of(file)
        if content is None:  # not one, or one that was and is damaged
            return listed
        entry = entry_of(content, path)
    # A copy of the folder has other times, and is still what was listed.
    if listed is not None and _meaning(listed) == _meaning(entry):
        return listed
    return entry


def _meaning(entry: Entry) -> Entry:
    return {k: v for k, v in entry.items() if k not in ("sha256", "saved_at")}


def _read(folder: AnyPath) -> dict[str, Entry] | None:
    """Return the entries, or None if the file of that name is somebody else's."""
    path = location.join(folder, MANIFEST)
    if not location.is_file(path):
        return {}
    with location.local_copy(path) as file:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):  # damaged: to be made anew from the files
            return {}
    if not isinstance(content, dict) or content.get("format") != MANIFEST_FORMAT:
        return None
    listed = content.get("checkpoints")
    if not isinstance(listed, dict):
        return {}
    # What lacks a part, or has another kind of it, was written by hand: the file is asked.
    return {name: entry for name, entry in listed.items() if _is_entry(entry)}


def _is_entry(entry: object) -> bool:
    if not isinstance(entry, dict) or not all(
        key in entry and isinstance(entry[key], kinds) for key, kinds in _PARTS.items()
    ):
        return False
    try:
        score_of(entry)
    except ValueError:
        return False
    return all(isinstance(entry.get(key), kinds) for key, kinds in _OTHER_PARTS.items())


def _change(folder: AnyPath, changes: Mapping[str, Entry | None]) -> None:
    """Set entries, and drop those that are None, among what others have written."""
    is_remote = location.is_remote(folder)
    with nullcontext() if is_remote else folder_lock(Path(folder)):
        former = _read(folder)
        if former is None:
            rank_zero_warn(
                f"`{location.join(folder, MANIFEST)}` is not a list of checkpoints of this "
                "version: it stays as it is, and the files beside it unlisted"
            )
            return
        entries = {n: e for n, e in {**former, **changes}.items() if e is not None}
        path = location.join(folder, MANIFEST)
        if not entries:
            location.remove(path)
        elif entries != former:
            content = {"format": MANIFEST_FORMAT, "checkpoints": entries}
            with location.writing(path) as stream:
                stream.write(json.dumps(content, indent=1).encode("utf-8"))
