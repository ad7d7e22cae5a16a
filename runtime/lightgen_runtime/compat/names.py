"""Under which names Lightning is imported, and what stands for each."""

from __future__ import annotations

import sys

from lightgen_runtime.utilities.module_alias import ModuleAlias

ALIASES = {
    "lightning": "lightgen_runtime",
    # The parts of Fabric that people use without Fabric are the same as Lightning's.
    "lightning.fabric": "lightgen_runtime.pytorch",
    "lightning.pytorch": "lightgen_runtime.pytorch",
    "lightning_fabric": "lightgen_runtime.pytorch",
    "pytorch_lightning": "lightgen_runtime.pytorch",
}


def replaced(name: str) -> str | None:
    """Return the runtime's dotted name for one of Lightning's; None for any other."""
    for alias in sorted(ALIASES, key=len, reverse=True):
        if name == alias or name.startswith(f"{alias}."):
            return ALIASES[alias] + name[len(alias) :]
    return None


def install() -> None:
    """From now on resolve imports of Lightning in this process to the runtime."""
    sys.meta_path.insert(0, ModuleAlias(ALIASES))
