"""A training runtime with the LightningModule programming model.

    import lightgen_runtime as L

    class MyModel(L.LightningModule): ...

    L.Trainer(max_epochs=3).fit(MyModel(), train_dataloader)

Nothing is imported before it is used, not even torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightgen_runtime.callbacks import Callback
    from lightgen_runtime.core.datamodule import LightningDataModule
    from lightgen_runtime.core.module import LightningModule
    from lightgen_runtime.trainer.trainer import Trainer
    from lightgen_runtime.utilities.seed import seed_everything

__version__ = "0.1.0"

__all__ = [
    "Callback",
    "LightningDataModule",
    "LightningModule",
    "Trainer",
    "__version__",
    "seed_everything",
]

_HOMES = {
    "Callback": "callbacks",
    "LightningDataModule": "core.datamodule",
    "LightningModule": "core.module",
    "Trainer": "trainer.trainer",
    "seed_everything": "utilities.seed",
}
_PACKAGES = (
    "accelerators",
    "callbacks",
    "cli",
    "demos",
    "loggers",
    "profilers",
    "pytorch",
    "strategies",
    "tuner",
)


def __getattr__(name: str) -> Any:
    """Import a public name, or a public package, on its first use (PEP 562)."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name in _PACKAGES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
