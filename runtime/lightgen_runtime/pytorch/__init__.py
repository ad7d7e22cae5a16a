"""The same names under the path that Lightning users import from.

`L.pytorch.Trainer` is `L.Trainer`, and `lightgen_runtime.pytorch.callbacks` is the very
module `lightgen_runtime.callbacks`, so that `isinstance` never sees two classes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import lightgen_runtime

_PREFIX = f"{__name__}."


class _SameModule(MetaPathFinder, Loader):
    """Answers an import below this package with the module of the shorter name."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname.startswith(_PREFIX) else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        shorter = spec.name.removeprefix(_PREFIX)
        module = import_module(f"{lightgen_runtime.__name__}.{shorter}")
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has just written the longer name into `__spec__`.
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state


sys.meta_path.insert(0, _SameModule())


def __getattr__(name: str) -> Any:
    """Return what the runtime has under this name."""
    return getattr(lightgen_runtime, name)
