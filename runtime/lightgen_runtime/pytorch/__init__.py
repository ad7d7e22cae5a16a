"""The same names under the path that Lightning users import from.

`L.pytorch.Trainer` is `L.Trainer`, and `lightgen_runtime.pytorch.callbacks` is the
module `lightgen_runtime.callbacks`.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import lightgen_runtime

for _name in ("callbacks", "cli", "demos", "loggers", "utilities"):
    # Under both names one module object, so that `isinstance` never sees two classes.
    sys.modules.setdefault(
        f"{__name__}.{_name}", import_module(f"lightgen_runtime.{_name}")
    )


def __getattr__(name: str) -> Any:
    """Return what the runtime has under this name."""
    return getattr(lightgen_runtime, name)
