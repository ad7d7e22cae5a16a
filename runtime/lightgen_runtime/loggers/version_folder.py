"""Numbered folders, one a run."""

from __future__ import annotations

from pathlib import Path


def claim_version(root: Path) -> int:
    """Make the first free `version_<n>` folder; two runs never get the same one."""
    root.mkdir(parents=True, exist_ok=True)
    taken = [path.name.removeprefix("version_") for path in root.glob("version_*")]
    version = max((int(number) + 1 for number in taken if number.isdigit()), default=0)
    while True:
        try:
            (root / f"version_{version}").mkdir()
        except FileExistsError:
            version += 1
        else:
            return version
