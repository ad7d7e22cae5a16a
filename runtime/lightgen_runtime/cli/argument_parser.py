"""The argument parser behind the command line: jsonargparse with our errors."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NoReturn

from jsonargparse import ArgumentParser
from jsonargparse.typing import class_from_function

from lightgen_runtime.callbacks.callback import Callback
from lightgen_runtime.cli.config_errors import explain_refusal
from lightgen_runtime.cli.config_file import ConfigError, ConfigFileAction
from lightgen_runtime.core.datamodule import LightningDataModule
from lightgen_runtime.core.module import LightningModule
from lightgen_runtime.trainer.trainer import Trainer

USAGE_ERROR = 2


class LightningArgumentParser(ArgumentParser):
    """Parse YAML configs and options for the classes of a run.

    Attributes:
        callback_keys: Keys of the callbacks that were added as arguments of their own.
    """

    def __init__(
        self,
        *args: Any,
        description: str = "Train, evaluate and predict with a LightningModule.",
        env_prefix: str = "PL",
        default_env: bool = False,
        **kwargs: Any,
    ) -> None:
        # Abbreviations would turn some typing errors into other options.
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(
            *args,
            description=description,
            env_prefix=env_prefix,
            default_env=default_env,
            **kwargs,
        )
        self.callback_keys: list[str] = []
        self.add_argument(
            "-c", "--config", action=ConfigFileAction, help="Path of a YAML config."
        )

    def add_lightning_class_args(
        self,
        lightning_class: type | Callable[..., Any],
        nested_key: str,
        subclass_mode: bool = False,
        required: bool = True,
    ) -> list[str]:
        """Add the `__init__` arguments of a class under `nested_key`.

        Args:
            lightning_class: A LightningModule, LightningDataModule, Trainer or
                Callback class, or a function that returns an instance of one.
            nested_key: Where the arguments go, e.g. `model` for `--model.lr`.
            subclass_mode: Accept any subclass, by `class_path` and `init_args`.
            required: Whether a subclass must be given.

        Returns:
            The keys that were added.
        """
        if not inspect.isclass(lightning_class):
            lightning_class = class_from_function(lightning_class)
        accepted = (Trainer, LightningModule, LightningDataModule, Callback)
        if not issubclass(lightning_class, accepted):
            raise TypeError(
                f"`{nested_key}` is given {lightning_class!r}, which is no subclass of "
                f"{', '.join(cls.__name__ for cls in accepted)}"
            )
        if issubclass(lightning_class, Callback):
            self.callback_keys.append(nested_key)
        if subclass_mode:
            added = self.add_subclass_arguments(
                lightning_class, nested_key, fail_untyped=False, required=required
            )
            return list(added or [])
        added = self.add_class_arguments(
            lightning_class,
            nested_key,
            fail_untyped=False,
            # The CLI builds the trainer itself, last, with callbacks of its own.
            instantiate=not issubclass(lightning_class, Trainer),
            sub_configs=True,
        )
        return list(added)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print one `error: ...` line with file, line and key, and exit with 2."""
        if not self.exit_on_error:
            super().error(message, ex)
        if not isinstance(ex, ConfigError):
            message = explain_refusal(self, getattr(self, "args", []), message)
        self.exit(USAGE_ERROR, f"error: {message}\n")
