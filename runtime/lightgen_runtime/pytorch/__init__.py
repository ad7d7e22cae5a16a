"""The same names under the path that Lightning users import from.

`L.pytorch.Trainer` is `L.Trainer`, and `lightgen_runtime.pytorch.callbacks` is the very
module `lightgen_runtime.callbacks`.
"""

from __future__ import annotations

import sys
from typing import Any

import lightgen_runtime
from lightgen_runtime.utilities.module_alias import ModuleAlias


class _Below(ModuleAlias):
    """Aliases what lies below this package, which itself is a module of its own."""

    def find_spec(self, fullname: str, *args: Any, **kwargs: Any) -> Any:
        """See `ModuleAlias`."""
        if fullname == __name__:
            return None
        return super().find_spec(fullname, *args, **kwargs)


sys.meta_path.insert(0, _Below({__name__: lightgen_runtime.__name__}))


def __getattr__(name: str) -> Any:
    """Return what the runtime has under this name."""
    return getattr(lightgen_runtime, name)
