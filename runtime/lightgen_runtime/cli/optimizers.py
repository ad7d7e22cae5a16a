"""Optimizers and learning-rate schedulers that a command line or config chooses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from jsonargparse import Namespace
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightgen_runtime.core.module import LightningModule
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.rank_zero import rank_zero_warn

if TYPE_CHECKING:
    from lightgen_runtime.cli.argument_parser import LightningArgumentParser

AUTOMATIC = "AUTOMATIC"  # instead of a key to link to: the module gets it by itself


class ReduceLROnPlateau(torch.optim.lr_scheduler.ReduceLROnPlateau):
    """Torch's scheduler of this name, which also knows the metric that it watches.

    Args:
        optimizer: The optimizer.
        monitor: Name of the logged metric.
        args: Further arguments of torch's class.
        kwargs: Likewise, by name.
    """

    def __init__(
        self, optimizer: Optimizer, monitor: str, *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(optimizer, *args, **kwargs)
        self.monitor = monitor


LRSchedulerTypeTuple = (LRScheduler, ReduceLROnPlateau)
LRSchedulerTypeUnion = LRScheduler | ReduceLROnPlateau
LRSchedulerType = type[LRScheduler] | type[ReduceLROnPlateau]

# Type hints of `__init__` arguments that a config gives as a class: the module calls
# what it gets with its parameters, or with its optimizer.
OptimizerCallable = Callable[[Iterable[Any]], Optimizer]
LRSchedulerCallable = Callable[[Optimizer], LRScheduler | ReduceLROnPlateau]

# By the key of a group of arguments: the class, or the base classes of what may be
# chosen, and where it goes.
Register = dict[str, tuple[type | tuple[type, ...], str]]


def with_class_path(cls: type, init_args: Namespace | None) -> dict[str, Any]:
    """Return arguments of `cls` as a config gives a class: path and arguments."""
    arguments = {} if init_args is None else init_args.as_dict()
    return {
        "class_path": f"{cls.__module__}.{cls.__name__}",
        "init_args": arguments,
    }


def instantiate_class(args: Any, init: dict[str, Any]) -> Any:
    """Build the class at a `class_path`.

    Args:
        args: What the class takes first, by position: one value, or a tuple of them.
        init: `class_path`, and the named arguments under `init_args`.
    """
    module, _, name = init["class_path"].rpartition(".")
    positional = args if isinstance(args, tuple) else (args,)
    return getattr(import_module(module), name)(
        *positional, **init.get("init_args", {})
    )


def link_registered(parser: LightningArgumentParser) -> None:
    """Hand the groups added with `link_to` over to the argument named there."""
    registered = {**parser._optimizers, **parser._lr_schedulers}
    for key, (cls, link_to) in registered.items():
        if link_to == AUTOMATIC:
            continue
        if isinstance(cls, tuple):
            parser.link_arguments(key, link_to)
        else:
            parser.link_arguments(key, link_to, partial(with_class_path, cls))


def configure_module(
    module: LightningModule,
    parser: LightningArgumentParser,
    config: Namespace,
    configure: Callable[..., Any],
) -> None:
    """Let `module.configure_optimizers` return what `config` chose, if it chose any.

    Args:
        module: The module whose parameters are optimized.
        parser: The parser with the groups.
        config: Its values.
        configure: Called as `configure(module, optimizer=..., lr_scheduler=...)`.

    Raises:
        MisconfigurationException: There are several groups of a kind to choose by.
    """
    optimizer_init = _chosen("optimizer", parser._optimizers, config)
    if optimizer_init is None:
        return
    scheduler_init = _chosen("lr_scheduler", parser._lr_schedulers, config)
    if type(module).configure_optimizers is not LightningModule.configure_optimizers:
        rank_zero_warn(
            f"the optimizer of the config is used instead of "
            f"`{type(module).__name__}.configure_optimizers`"
        )
    optimizer = instantiate_class(module.parameters(), optimizer_init)
    scheduler = instantiate_class(optimizer, scheduler_init) if scheduler_init else None
    bound = partial(configure, optimizer=optimizer, lr_scheduler=scheduler)
    vars(module)["configure_optimizers"] = MethodType(bound, module)


def _chosen(kind: str, register: Register, config: Namespace) -> dict[str, Any] | None:
    """Return path and arguments of the one class to use by itself, if it is given."""
    automatic = [key for key, (_, link_to) in register.items() if link_to == AUTOMATIC]
    if len(automatic) > 1:
        raise MisconfigurationException(
            f"{', '.join(f'`{key}`' for key in automatic)} are each to be the module's "
            f"{kind}. Give all but one a `link_to`, such as `model.{kind}_init`, and "
            "build them in the module's `configure_optimizers`."
        )
    if not automatic:
        return None
    [key] = automatic
    cls, init = register[key][0], config.get(key)
    if not isinstance(cls, tuple):
        return with_class_path(cls, init)
    return init.as_dict() if isinstance(init, Namespace) else init
