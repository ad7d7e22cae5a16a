"""Command lines: LightningCLI for any module, ProjectCLI for generated projects."""

from lightgen_runtime.cli.argument_parser import LightningArgumentParser
from lightgen_runtime.cli.lightning_cli import ArgsType, LightningCLI
from lightgen_runtime.cli.project_cli import ProjectCLI
from lightgen_runtime.cli.save_config import SaveConfigCallback

__all__ = [
    "ArgsType",
    "LightningArgumentParser",
    "LightningCLI",
    "ProjectCLI",
    "SaveConfigCallback",
]
