"""Small complete modules, datasets and datamodules, to try things with."""

from lightgen_runtime.demos.boring_classes import (
    BoringDataModule,
    BoringModel,
    DemoModel,
)

__all__ = ["BoringDataModule", "BoringModel", "DemoModel"]
