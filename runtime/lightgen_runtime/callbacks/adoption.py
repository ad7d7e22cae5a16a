"""Which files of a folder a resumed fit takes over, because they are its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from lightgen_runtime.io import location
from lightgen_runtime.io.store import reconcile, score_of


class OwnFile(NamedTuple):
    """A file of the fit that is resumed.

    Attributes:
        path: Where it is.
        role: "best" for one that makes room for better ones, "last" for one that makes
            room for newer ones, else something that never makes room.
        score: What it is ranked by.
        step: How many optimizer steps were done; None if unknown.
    """

    path: str
    role: str | None
    score: float | None
    step: int | None


def own_files(
    folder: str,
    extension: str,
    last: str,
    deep: bool,
    owner: tuple[str, str],
    known: Mapping[str, str],
) -> list[OwnFile]:
    """Return what one callback has written to `folder` in this fit, oldest first.

    Args:
        folder: Of the callback.
        extension: Of its files.
        last: What the names of the newest ones begin with.
        deep: Look into the folders in it as well.
        owner: Key of the callback, and the fit, as the manifest has them.
        known: Roles of files, by path, that the callback remembers: those of old folders
            do not say whose they are.
    """
    roles = {location.absolute(path): role for path, role in known.items()}
    found = []
    for each in _folders(folder, deep):
        for name, entry in reconcile(each, extension).items():
            path = location.join(each, name)
            role = entry["role"]
            if (entry["kept_by"], entry.get("run")) != owner:
                # A link to a file is not that file.
                at = path if role == "last" else location.absolute(path)
                if at not in roles:
                    continue
                role = roles[at]
            if location.is_link(path):  # not what it points to, whose record it shows
                if not name.startswith(last):
                    continue
                role = "last"
            found.append(
                (
                    entry["saved_at"],
                    OwnFile(path, role, score_of(entry), entry.get("step")),
                )
            )
    return [file for _, file in sorted(found, key=lambda pair: pair[0])]


def still_there(known: Iterable[str], source: str) -> set[str]:
    """Return which of the paths that are remembered lead to something.

    Args:
        known: The paths.
        source: What the fit goes on from: if that leads to nothing, a `CheckpointIO`
            keeps things where only it finds them, and all are taken to be there.
    """
    everywhere = not location.exists(source)
    return {path for path in known if everywhere or location.exists(path)}


def of_role(files: Iterable[OwnFile], *roles: str | None) -> list[OwnFile]:
    """Return those of `files` that have one of `roles`."""
    return [file for file in files if file.role in roles]


def is_inside(path: str, folder: str) -> bool:
    """Tell whether `path` is in `folder` or one of its folders."""
    if location.is_remote(folder):
        return path.startswith(location.join(folder, ""))
    return Path(folder).resolve() in Path(path).resolve().parents


def _folders(folder: str, deep: bool) -> Iterator[str]:
    yield folder
    if deep and not location.is_remote(folder):
        yield from (str(p) for p in sorted(Path(folder).rglob("*")) if p.is_dir())
