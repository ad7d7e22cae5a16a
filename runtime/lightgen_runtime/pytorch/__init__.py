"""The same names under the paths that Lightning users import from.

`L.pytorch.Trainer` is `L.Trainer`, and `lightgen_runtime.pytorch.callbacks.timer` is the
very module `lightgen_runtime.callbacks.timer`. Packages, and modules of Lightning that are
divided in another way here, are views: they find each name where it lives.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import lightgen_runtime
from lightgen_runtime.pytorch.paths import MOVED
from lightgen_runtime.utilities.module_alias import ModuleAlias

_HERE = lightgen_runtime.__name__
_DIVIDED = {path.rpartition(".")[0] for path in MOVED}
_DIVIDED |= {path.rpartition(".")[0] for path in _DIVIDED}


class _View(ModuleType):
    """A module of Lightning whose names live elsewhere."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__all__":
            raise AttributeError(name)
        path = self.__name__.removeprefix(f"{__name__}.")
        home, _, own_name = MOVED.get(f"{path}.{name}", "").rpartition(".")
        if home:
            return getattr(import_module(f"{_HERE}.{home}"), own_name)
        found = getattr(_counterpart(path), name, None)
        if _exists_below(path, name):
            return import_module(f"{self.__name__}.{name}")
        if found is None:
            raise AttributeError(f"module `{self.__name__}` has no attribute `{name}`")
        return found


def _exists_below(path: str, name: str) -> bool:
    below = f"{path}.{name}"
    return below in _DIVIDED or _spec(f"{_HERE}.{below}") is not None


def _counterpart(path: str) -> ModuleType | None:
    """Return the module of the same path here, if there is one."""
    name = f"{_HERE}.{path}"
    return import_module(name) if name in sys.modules or _spec(name) else None


def _spec(module: str) -> ModuleSpec | None:
    try:
        return find_spec(module)
    except ModuleNotFoundError:  # of what it would be in
        return None


class _Below(ModuleAlias):
    """Answers for what lies below this package, which itself is a module of its own."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """See `ModuleAlias`."""
        if fullname in (__name__, f"{__name__}.paths"):
            return None
        return super().find_spec(fullname, path, target)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return a view, or the module behind the alias."""
        path = spec.name.removeprefix(f"{__name__}.")
        same_path = _spec(f"{_HERE}.{path}")
        is_package = same_path and same_path.submodule_search_locations is not None
        if is_package or path in _DIVIDED:
            spec.loader_state = spec
            return _View(spec.name)
        return super().create_module(spec)


sys.meta_path.insert(0, _Below({__name__: _HERE}))


def __getattr__(name: str) -> Any:
    """Return what the runtime has under this name."""
    is_name = name in lightgen_runtime.__all__ or name.startswith("_")
    if not is_name and _spec(f"{_HERE}.{name}"):
        return import_module(f"{__name__}.{name}")
    return getattr(lightgen_runtime, name)
