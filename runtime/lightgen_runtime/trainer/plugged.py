"""What `Trainer(plugins=...)` was given, sorted by kind and checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lightgen_runtime.core.hooks import is_overridden
from lightgen_runtime.io import CheckpointIO, TorchCheckpointIO
from lightgen_runtime.precision import Precision
from lightgen_runtime.strategies import Strategy
from lightgen_runtime.strategies.environments import ClusterEnvironment
from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.other_package import import_hint

Plugin = Precision | CheckpointIO | ClusterEnvironment

# Methods of Lightning's precisions that no loop here calls.
UNCALLED = (
    *("pre_backward", "backward", "post_backward", "optimizer_step", "main_params"),
    *("clip_grad_by_norm", "clip_grad_by_value", "unscale_gradients", "connect"),
    *("convert_output", "tensor_init_context", "train_step_context"),
    *("val_step_context", "test_step_context", "predict_step_context"),
    *("on_save_checkpoint", "on_load_checkpoint"),
)


@dataclass(frozen=True)
class Plugged:
    """The plugins of a trainer; None where the other flags decide."""

    precision: Precision | None = None
    checkpoint_io: CheckpointIO | None = None
    environment: ClusterEnvironment | None = None


def plugged(flags: dict[str, Any]) -> Plugged:
    """Sort the plugins that a trainer was given.

    Args:
        flags: The constructor's arguments by name.

    Raises:
        MisconfigurationException: One is no plugin, there are two of a kind, or one
            contradicts another flag.
    """
    given = flags["plugins"]
    if given is None:
        return Plugged()
    found: dict[str, Any] = {}
    for plugin in given if isinstance(given, Iterable) else [given]:
        kind = _kind_of(plugin)
        if kind in found:
            raise MisconfigurationException(
                f"`Trainer(plugins=...)` got {_name(found[kind])} and {_name(plugin)}, "
                "which do the same thing; pass one of them"
            )
        found[kind] = plugin
    _check_precision(flags, found.get("precision"))
    _check_checkpoint_io(flags, found.get("checkpoint_io"))
    return Plugged(**found)


def _kind_of(plugin: Any) -> str:
    if isinstance(plugin, Precision):
        return "precision"
    if isinstance(plugin, CheckpointIO):
        return "checkpoint_io"
    if isinstance(plugin, ClusterEnvironment):
        return "environment"
    raise MisconfigurationException(
        f"`Trainer(plugins=...)` got {plugin!r} ({type(plugin).__name__}); each must be a "
        f"`Precision`, a `CheckpointIO` or a `ClusterEnvironment`{import_hint(plugin)}"
    )


def _check_precision(flags: dict[str, Any], precision: Precision | None) -> None:
    if precision is None:
        return
    if flags["precision"] is not None:
        raise MisconfigurationException(
            f"`Trainer(precision={flags['precision']!r})` with {_name(precision)} in "
            "`plugins`: both say what to compute in; pass one of them"
        )
    for name in UNCALLED:
        if is_overridden(name, precision, Precision):
            raise MisconfigurationException(
                f"{_name(precision)} has a method `{name}`, which Lightning calls and this "
                "runtime does not. What it calls are the methods of "
                "`lightgen_runtime.plugins.Precision`."
            )


def _check_checkpoint_io(
    flags: dict[str, Any], checkpoint_io: CheckpointIO | None
) -> None:
    strategy = flags["strategy"]
    if checkpoint_io is None or not isinstance(strategy, Strategy):
        return
    if type(strategy.checkpoint_io) is not TorchCheckpointIO:
        raise MisconfigurationException(
            f"`Trainer(strategy=...)` got a strategy with {_name(strategy.checkpoint_io)}, "
            f"and {_name(checkpoint_io)} is in `plugins`; pass one of them"
        )


def _name(plugin: object) -> str:
    return f"a {type(plugin).__name__}"
