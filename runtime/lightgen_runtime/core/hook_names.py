"""Methods that nothing will ever call: misspelt hooks, and hooks of Lightning 1.x."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from lightgen_runtime.utilities.exceptions import MisconfigurationException
from lightgen_runtime.utilities.nearest import nearest
from lightgen_runtime.utilities.rank_zero import rank_zero_warn

_AT_EPOCH_END = (
    "it is given no outputs: keep them in a list of your own in the step, and clear it"
)
# Source: those with which Lightning 2 refuses to run a module; and one that makes layers,
# which it still calls.
REFUSED = {
    "fit": ("training_epoch_end", "validation_epoch_end", "configure_sharded_model"),
    "validate": ("validation_epoch_end", "configure_sharded_model"),
    "test": ("test_epoch_end", "configure_sharded_model"),
    "predict": ("configure_sharded_model",),
}
# Hooks of Lightning 1.x, and what does their work.
_RETIRED = {
    "training_epoch_end": "on_train_epoch_end",
    "validation_epoch_end": "on_validation_epoch_end",
    "test_epoch_end": "on_test_epoch_end",
    "on_epoch_start": "on_train_epoch_start",
    "on_epoch_end": "on_train_epoch_end",
    "on_batch_start": "on_train_batch_start",
    "on_batch_end": "on_train_batch_end",
    "on_init_start": "setup",
    "on_init_end": "setup",
    "on_pretrain_routine_start": "on_fit_start",
    "on_pretrain_routine_end": "on_fit_start",
    "on_keyboard_interrupt": "on_exception",
    "on_configure_sharded_model": "setup",
    "on_before_accelerator_backend_setup": "setup",
    "on_train_dataloader": "setup",
    "on_val_dataloader": "setup",
    "on_test_dataloader": "setup",
    "on_predict_dataloader": "setup",
    "on_hpc_save": "on_save_checkpoint",
    "on_hpc_load": "on_load_checkpoint",
    "training_step_end": "training_step",
    "validation_step_end": "validation_step",
    "test_step_end": "test_step",
    "predict_step_end": "predict_step",
    "configure_sharded_model": "configure_model",
    "get_progress_bar_dict": "ProgressBar.get_metrics",
    "tbptt_split_batch": "training_step",
}
# Names are compared after these substitutions, which similarity would not find.
_SPELLINGS = (
    ("on_val_", "on_validation_"),
    ("on_valid_", "on_validation_"),
    ("on_training_", "on_train_"),
)
# Source: tried on the hooks' names: a letter more or less is above it, and helpers such
# as `train_step` or `best_step` are below.
_SIMILAR = 0.9


def check_hook_names(owner: object, base: type, refused: Collection[str] = ()) -> None:
    """Warn about methods of `owner` that look like hooks and are none.

    A method whose name is near a hook's that `owner` has as well is a helper of it, and
    is passed over.

    Args:
        owner: A module, datamodule or callback.
        base: The class that declares its hooks.
        refused: Retired hooks without whose work the run would be another one.

    Raises:
        MisconfigurationException: It has one of `refused`.
    """
    own = own_methods(owner, base)
    kind = type(owner).__name__
    for name in own:
        if name in refused:
            how = f"; {_AT_EPOCH_END} there" if name.endswith("_epoch_end") else ""
            raise MisconfigurationException(
                f"`{kind}.{name}` is never called: it was a hook of Lightning 1. Use "
                f"`{_RETIRED[name]}`{how}."
            )
    for name in own:
        hook = hook_meant_by(name, own, base)
        if hook is None:
            continue
        if name in _RETIRED:
            rank_zero_warn(
                f"`{kind}.{name}` is never called: it was a hook of Lightning 1. Use "
                f"`{hook}` instead."
            )
        else:
            rank_zero_warn(
                f"`{kind}.{name}` is no hook and is never called by the trainer; did you "
                f"mean `{hook}`?"
            )


def hook_meant_by(name: str, own: Collection[str], base: type) -> str | None:
    """Return the hook that a method which is none seems to be meant for, or None.

    Args:
        name: The method.
        own: All methods beside it.
        base: The class that declares the hooks.
    """
    hooks = [hook for hook in dir(base) if _is_hook(hook)]
    if name in hooks:
        return None
    absent = [hook for hook in hooks if hook not in own]
    return _RETIRED.get(name) or _nearest(name, absent)


def own_methods(owner: object, base: type) -> list[str]:
    """Return the public methods that `owner` brings and `base` does not declare as is."""
    inherited = set(base.__mro__)
    found: dict[str, Any] = {}
    for cls in type(owner).__mro__:
        if cls not in inherited and not _is_packaged(cls):
            found.update(vars(cls))
    return [n for n, v in found.items() if not n.startswith("_") and callable(v)]


def hint_of_nearest(hook: str, owner: object, base: type) -> str:
    """Return ` Did you mean ...?` if a method's name is near that of a missing hook."""
    near = nearest(hook, own_methods(owner, base), cutoff=0.8)
    return f" Did you mean `{hook}` by `{near}`?" if near else ""


def _nearest(name: str, hooks: list[str]) -> str | None:
    for short, full in _SPELLINGS:
        if name.startswith(short):
            name = name.replace(short, full, 1)
            if name in hooks:
                return name
    return nearest(name, hooks, cutoff=_SIMILAR)


def _is_hook(name: str) -> bool:
    return name.startswith(("on_", "configure_")) or name.endswith(
        ("_step", "_dataloader")
    )


def _is_packaged(cls: type) -> bool:
    return cls.__module__.partition(".")[0] in ("torch", "lightgen_runtime")
