"""Importing a module under another name without making a second one of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class ModuleAlias(MetaPathFinder, Loader):
    """Answers imports of some names with the modules of others.

    Put an instance at the front of `sys.meta_path`. The very module is returned, so that
    `isinstance` never sees two classes.

    Args:
        names: Replacement for each dotted name; names below one follow it.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        # The longest first: `a.b` before `a`.
        self._names = sorted(names.items(), key=lambda item: -len(item[0]))

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Return a spec for an aliased name, None for any other."""
        found = self._replaced(fullname) is not None
        return ModuleSpec(fullname, self, is_package=True) if found else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module that stands behind the alias."""
        name = self._replaced(spec.name)
        assert name is not None
        module = import_module(name)
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Leave the module as it is."""
        # The import system has just written the alias into `__spec__`.
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state

    def _replaced(self, fullname: str) -> str | None:
        for name, replacement in self._names:
            if fullname == name or fullname.startswith(f"{name}."):
                return replacement + fullname[len(name) :]
        return None
