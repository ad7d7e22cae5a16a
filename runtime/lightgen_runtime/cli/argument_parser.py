"""The argument parser behind the command line: jsonargparse with our errors."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NoReturn

from jsonargparse import ArgumentParser
from jsonargparse.typing import class_from_function
from torch.optim import Optimizer

from lightgen_runtime.callbacks.callback import Callback
from lightgen_runtime.cli.complaint import complain
from lightgen_runtime.cli.config_errors import explain_refusal
from lightgen_runtime.cli.config_file import ConfigError
from lightgen_runtime.cli.optimizers import (
    AUTOMATIC,
    LRSchedulerType,
    LRSchedulerTypeTuple,
    Register,
)
from lightgen_runtime.core.datamodule import LightningDataModule
from lightgen_runtime.core.module import LightningModule
from lightgen_runtime.trainer.trainer import Trainer
from lightgen_runtime.utilities.exceptions import MisconfigurationException

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
        self._optimizers: Register = {}
        self._lr_schedulers: Register = {}

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

        Raises:
            MisconfigurationException: The class is none of these.
        """
        if not inspect.isclass(lightning_class):
            lightning_class = class_from_function(lightning_class)
        accepted = (Trainer, LightningModule, LightningDataModule, Callback)
        if not issubclass(lightning_class, accepted):
            raise MisconfigurationException(
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

    def add_optimizer_args(
        self,
        optimizer_class: type[Optimizer] | tuple[type[Optimizer], ...] = (Optimizer,),
        nested_key: str = "optimizer",
        link_to: str = AUTOMATIC,
    ) -> None:
        """Add the arguments of an optimizer under `nested_key`.

        Args:
            optimizer_class: The class, or a tuple of classes: then the config chooses
                one of them or of their subclasses.
            nested_key: Where the arguments go, e.g. `optimizer` for `--optimizer.lr`.
            link_to: The argument that gets `class_path` and `init_args` of the
                optimizer; AUTOMATIC makes it the module's by itself.
        """
        self._add_chosen_class(optimizer_class, Optimizer, nested_key, "params")
        self._optimizers[nested_key] = (optimizer_class, link_to)

    def add_lr_scheduler_args(
        self,
        lr_scheduler_class: (
            LRSchedulerType | tuple[LRSchedulerType, ...]
        ) = LRSchedulerTypeTuple,
        nested_key: str = "lr_scheduler",
        link_to: str = AUTOMATIC,
    ) -> None:
        """Add the arguments of a scheduler; see `add_optimizer_args`."""
        self._add_chosen_class(
            lr_scheduler_class, LRSchedulerTypeTuple, nested_key, "optimizer"
        )
        self._lr_schedulers[nested_key] = (lr_scheduler_class, link_to)

    def _add_chosen_class(
        self,
        given: type | tuple[type, ...],
        accepted: type | tuple[type, ...],
        nested_key: str,
        skip: str,
    ) -> None:
        for cls in given if isinstance(given, tuple) else (given,):
            if not (inspect.isclass(cls) and issubclass(cls, accepted)):
                bases = accepted if isinstance(accepted, tuple) else (accepted,)
                raise MisconfigurationException(
                    f"`{nested_key}` is given {cls!r}, which is no subclass of "
                    f"{' or '.join(base.__name__ for base in bases)}"
                )
        # They are built later, once there are parameters to give them.
        kwargs: dict[str, Any] = {
            "instantiate": False,
            "fail_untyped": False,
            "skip": {skip},
        }
        if isinstance(given, tuple):
            self.add_subclass_arguments(given, nested_key, **kwargs)
        else:
            self.add_class_arguments(given, nested_key, sub_configs=True, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print one `error: ...` line with file, line and key, and exit with 2."""
        if not self.exit_on_error:
            super().error(message, ex)
        if not isinstance(ex, ConfigError):
            message = explain_refusal(self, getattr(self, "args", []), message)
        complain(message)
        self.exit(USAGE_ERROR)
