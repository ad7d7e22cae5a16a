"""Keeping the config that a run really used beside its results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from lightgen_runtime.callbacks.callback import Callback
from lightgen_runtime.utilities.exceptions import LightgenRuntimeError

if TYPE_CHECKING:
    from lightgen_runtime.cli.argument_parser import LightningArgumentParser
    from lightgen_runtime.core.module import LightningModule
    from lightgen_runtime.trainer.trainer import Trainer


class ConfigExistsError(LightgenRuntimeError, RuntimeError):
    """The config of an earlier run would be overwritten."""


class SaveConfigCallback(Callback):
    """Save the resolved config to the log folder when a run starts.

    Args:
        parser: The parser that the config comes from.
        config: The resolved config.
        config_filename: Name of the file.
        overwrite: Replace a file that is there already.
        multifile: Save configs that came from several files as several files.
        save_to_log_dir: Save to `trainer.log_dir`; otherwise only `save_config` runs.

    Raises:
        ValueError: Nothing would be saved: `save_to_log_dir` is false and `save_config`
            is not overridden.
    """

    def __init__(
        self,
        parser: LightningArgumentParser,
        config: Namespace,
        config_filename: str = "config.yaml",
        overwrite: bool = False,
        multifile: bool = False,
        save_to_log_dir: bool = True,
    ) -> None:
        self.parser = parser
        self.config = config
        self.config_filename = config_filename
        self.overwrite = overwrite
        self.multifile = multifile
        self.save_to_log_dir = save_to_log_dir
        self.already_saved = False
        if not save_to_log_dir and type(self).save_config is (
            SaveConfigCallback.save_config
        ):
            raise ValueError(
                "`save_to_log_dir=False` saves nothing. Override `save_config` to save "
                "somewhere else, or pass `save_config_callback=None` to the CLI."
            )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save the config once, on rank zero.

        Raises:
            ConfigExistsError: There is a config in the log folder and `overwrite` is
                not set.
        """
        if self.already_saved:
            return
        if trainer.is_global_zero:
            if self.save_to_log_dir:
                self._save_to_log_dir(trainer)
            self.save_config(trainer, pl_module, stage)
        self.already_saved = True

    def save_config(
        self, trainer: Trainer, pl_module: LightningModule, stage: str
    ) -> None:
        """Override to save the config somewhere else as well; called on rank zero."""

    def _save_to_log_dir(self, trainer: Trainer) -> None:
        if trainer.log_dir is None:
            return
        path = Path(trainer.log_dir) / self.config_filename
        if path.exists() and not self.overwrite:
            raise ConfigExistsError(
                f"`{path}` belongs to an earlier run and is kept. Move it away, give "
                "the logger another folder, or pass `save_config_callback=None` or "
                '`save_config_kwargs={"overwrite": True}` to the CLI.'
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        self.parser.save(
            self.config,
            path,
            skip_unset=False,
            skip_validation=True,
            overwrite=self.overwrite,
            multifile=self.multifile,
        )
