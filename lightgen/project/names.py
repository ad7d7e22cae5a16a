"""The one validator of project names.

A project's name is its folder, its import package and its distribution at once, so it
has to be legal and free as all three.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
import unicodedata
from pathlib import Path

from lightgen.errors import InvalidNameError
from lightgen.project.state import STATE_PATH

# Longer names leave no room for temporary siblings within the usual 255 bytes.
_MAX_LENGTH = 100
_PATTERN = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
WINDOWS_DEVICES = frozenset(
    {"con", "prn", "aux", "nul"}
    | {f"{port}{digit}" for port in ("com", "lpt") for digit in range(10)}
)
# Folders of every generated project, and packages that its code imports whether or not
# they happen to be installed here.
_OWN_FOLDERS = frozenset({"src", "tests", "runs"})
_RUNTIME_PACKAGES = frozenset({"lightgen", "lightgen_runtime", "lightning", "torch"})


def check_name(name: str, parent: Path) -> None:
    """Refuse a name that cannot be folder, package and distribution at once.

    Args:
        name: The name as given.
        parent: The folder that the project's folder will be in.

    Raises:
        InvalidNameError: With the reason and the nearest legal name.
    """
    reason = _fault(name, parent)
    if reason is None:
        return
    raise InvalidNameError(
        f"{name!r} cannot be a project name: {reason}",
        where="argument NAME",
        accepted="a free import name: an ASCII letter, then letters, digits and `_`",
        todo=f"lightgen new {suggest_name(name, parent)}",
    )


def suggest_name(name: str, parent: Path) -> str:
    """Find the legal and free name nearest to `name`."""
    text = unicodedata.normalize("NFKC", name).replace("\\", "/")
    last = [part for part in text.split("/") if part.strip(" .")][-1:]
    base = re.sub(r"[^A-Za-z0-9]+", "_", "".join(last)).strip("_")[:80].rstrip("_")
    if not base:
        base = "mymodel"
    elif not base[0].isalpha() or base.lower().startswith("test_"):
        base = f"model_{base}"
    candidate, number = base, 1
    while _fault(candidate, parent) is not None:
        candidate = f"{base}_model" if number == 1 else f"{base}_model{number}"
        number += 1
    return candidate


def _fault(name: str, parent: Path) -> str | None:
    """Return the first reason against `name`, or None."""
    lowered = name.lower()
    if not name:
        return "it is empty"
    if fault := _spelling_fault(name):
        return fault
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        return "it is a Python keyword"
    if lowered in WINDOWS_DEVICES:
        return "Windows keeps it for a device"
    if lowered in _OWN_FOLDERS:
        return "every project has a folder of that name inside"
    if lowered == "conftest" or re.fullmatch(r"test_.*|.*_test", lowered):
        return "pytest would take it for one of its own files"
    if lowered in sys.stdlib_module_names:
        return "it would shadow a module of Python's standard library"
    if taken := _taken_by(name, parent / name):
        return f"it would shadow {taken}"
    if clash := _case_clash(name, parent):
        return f"it differs only in case from {clash!r} in the same folder"
    return None


def _spelling_fault(name: str) -> str | None:
    if len(name) > _MAX_LENGTH:
        return f"it has {len(name)} characters, more than {_MAX_LENGTH}"
    if not name.isascii() and unicodedata.normalize("NFKC", name) != name:
        return "Python would silently read its look-alike characters as others"
    if strange := re.search(r"[^A-Za-z0-9_]", name):
        return f"it contains {strange.group()!r}"
    if not _PATTERN.fullmatch(name):
        return f"it begins with {name[0]!r}"
    if name.endswith("_"):
        return "a distribution's name must not end with '_'"
    return None


def _taken_by(name: str, root: Path) -> str | None:
    """Name what an import or an installation of `name` would hide, or None."""
    if name.lower() in _RUNTIME_PACKAGES:
        return f"the package `{name.lower()}`, which generated code relies on"
    if (root / STATE_PATH).is_file():
        # A project that is already there may well be installed itself.
        return None
    # Not for `--help`, which loads this module too.
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        found = distribution(name)
    except PackageNotFoundError:
        pass
    else:
        return f"the installed distribution `{found.metadata['Name']}`"
    spec = importlib.util.find_spec(name)
    if spec is None:
        return None
    # Started as `python -m lightgen`, the working folder is searched too, and finds the
    # target's own folder as a namespace package.
    locations = list(spec.submodule_search_locations or ())
    if spec.origin is None and all(Path(place) == root for place in locations):
        return None
    return f"the installed package `{name}`"


def _case_clash(name: str, parent: Path) -> str | None:
    if not parent.is_dir():
        return None
    for sibling in parent.iterdir():
        if sibling.name != name and sibling.name.casefold() == name.casefold():
            return sibling.name
    return None
