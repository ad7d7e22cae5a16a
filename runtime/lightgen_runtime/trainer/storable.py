"""Whether what a fit is going to save can be saved, asked before its first batch."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from lightgen_runtime.callbacks.callback import Callback
from lightgen_runtime.callbacks.checkpoint import Checkpoint
from lightgen_runtime.core.datamodule import LightningDataModule
from lightgen_runtime.core.hooks import is_overridden
from lightgen_runtime.io.content_check import check_content, check_structure
from lightgen_runtime.trainer.checkpoint import (
    is_ours,
    model_content,
    plain_content,
    training_content,
)
from lightgen_runtime.utilities.exceptions import (
    CheckpointFormatError,
    MisconfigurationException,
)

if TYPE_CHECKING:
    from lightgen_runtime.loops.run import Run


def check_storable(run: Run) -> None:
    """Refuse a fit that would train and then not be able to save what it has.

    What `on_save_checkpoint` adds is asked for only where the module or a callback of
    the user's own has that hook: it is called once, with a checkpoint that nobody writes.

    Args:
        run: A fit, its optimizers and callbacks in place.

    Raises:
        MisconfigurationException: Something to be saved is no data.

    Compat: Lightning stores any object, in files that no safe loader reads; it never
    calls `on_save_checkpoint` without writing a file.
    """
    saving = [part for part in run.callbacks if isinstance(part, Checkpoint)]
    if not saving or run.trainer.fast_dev_run:
        return
    checkpoint = model_content(run)
    if any(not getattr(part, "save_weights_only", False) for part in saving):
        checkpoint.update(training_content(run))
        _ask_callbacks(run, checkpoint)
    datamodule = run.datamodule
    if is_overridden("state_dict", datamodule, LightningDataModule):
        checkpoint[type(datamodule).__qualname__] = datamodule.state_dict()
    if run.overrides("on_save_checkpoint"):
        _ask(run.module.on_save_checkpoint, checkpoint)
    try:
        content = check_content(plain_content(checkpoint), "its checkpoint")
        check_structure(content, "its checkpoint", sys.maxsize)
    except (MisconfigurationException, CheckpointFormatError) as error:
        raise MisconfigurationException(
            f"this fit saves checkpoints, and {error} Nothing was trained."
        ) from None


def _ask_callbacks(run: Run, checkpoint: dict[str, Any]) -> None:
    for callback in run.callbacks:
        if not is_ours(callback) and is_overridden(
            "on_save_checkpoint", callback, Callback
        ):
            _ask(
                lambda content, hook=callback.on_save_checkpoint: hook(
                    run.trainer, run.module, content
                ),
                checkpoint,
            )


def _ask(hook: Any, checkpoint: dict[str, Any]) -> None:
    """Let a hook add what it adds; what it needs may only be there later."""
    try:
        hook(checkpoint)
    except Exception:  # its own, which it raises again where it is saved
        return
