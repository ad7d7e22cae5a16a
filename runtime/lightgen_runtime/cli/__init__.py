"""Command lines: LightningCLI for any module, ProjectCLI for generated projects."""

from lightgen_runtime.cli.argument_parser import LightningArgumentParser
from lightgen_runtime.cli.instantiation import instantiate_module
from lightgen_runtime.cli.lightning_cli import ArgsType, LightningCLI
from lightgen_runtime.cli.optimizers import (
    LRSchedulerCallable,
    LRSchedulerType,
    LRSchedulerTypeTuple,
    LRSchedulerTypeUnion,
    OptimizerCallable,
    ReduceLROnPlateau,
    instantiate_class,
)
from lightgen_runtime.cli.project_cli import ProjectCLI
from lightgen_runtime.cli.save_config import SaveConfigCallback

__all__ = [
    "ArgsType",
    "LRSchedulerCallable",
    "LRSchedulerType",
    "LRSchedulerTypeTuple",
    "LRSchedulerTypeUnion",
    "LightningArgumentParser",
    "LightningCLI",
    "OptimizerCallable",
    "ProjectCLI",
    "ReduceLROnPlateau",
    "SaveConfigCallback",
    "instantiate_class",
    "instantiate_module",
]
