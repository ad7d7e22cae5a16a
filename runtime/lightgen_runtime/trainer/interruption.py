"""The checkpoint that an interrupted fit leaves: where it is, and when it goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightgen_runtime.callbacks.checkpoint_names import default_folder
from lightgen_runtime.callbacks.model_checkpoint import ModelCheckpoint
from lightgen_runtime.io import location
from lightgen_runtime.trainer import slurm
from lightgen_runtime.utilities.exceptions import CheckpointWriteError
from lightgen_runtime.utilities.rank_zero import rank_zero_info, rank_zero_warn

if TYPE_CHECKING:
    from lightgen_runtime.trainer.trainer import Trainer

INTERRUPTED_PREFIX = "interrupted-"


def save_interrupted(trainer: Trainer) -> None:
    """Write the state of the fit, in place of what an earlier interruption left.

    Collective. Returns when the file is on the disk, or with a warning when it cannot be
    written; what was there stays then. A trainer without a `ModelCheckpoint`, and a trial
    run, write nothing.
    """
    path = _path(trainer)
    if path is None:
        return
    trainer.interrupted_path = path
    try:
        trainer.save_checkpoint(path)
        trainer.strategy.finish_saves(path)  # no time for a thread of its own
    except CheckpointWriteError as error:
        trainer.interrupted_path = None
        rank_zero_warn(f"{error} What was trained since the last checkpoint is lost.")
        return
    rank_zero_info(f"Saved `{path}`: the fit is interrupted")
    _remove_source(trainer, kept=path)


def forget_interrupted(trainer: Trainer) -> None:
    """Remove what an interruption left, once the fit that it was for has ended well."""
    _remove_source(trainer, kept=None)


def job_file(trainer: Trainer, job: str) -> str:
    """Return where a fit of a SLURM job leaves its state.

    Source: Lightning's name for such a file; its number is that of the job here, so that
    jobs in one folder do not take each other's.
    """
    return location.join(trainer.default_root_dir, f"hpc_ckpt_{job}.ckpt")


def _path(trainer: Trainer) -> str | None:
    folder = _folder(trainer)
    if folder is None or trainer.fast_dev_run:
        return None
    if (job := slurm.batch_job()) is not None:
        return job_file(trainer, job)
    extension = ModelCheckpoint.FILE_EXTENSION
    name = f"{INTERRUPTED_PREFIX}step={trainer.global_step}{extension}"
    return location.join(folder, name)


def _folder(trainer: Trainer) -> str | None:
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint):
            return str(callback.dirpath or default_folder(trainer))
    return None


def _remove_source(trainer: Trainer, kept: str | None) -> None:
    """Remove the file that the fit went on from, if it is an interrupted one of ours."""
    source, folder = trainer.ckpt_path, _folder(trainer)
    if source is None or folder is None or not location.exists(source):
        return
    job = slurm.batch_job()
    parent, name = location.split(source)
    is_ours = name.startswith(INTERRUPTED_PREFIX) and _same(parent, folder)
    is_ours |= job is not None and _same(source, job_file(trainer, job))
    if is_ours and not (kept is not None and _same(source, kept)):
        try:
            trainer.strategy.remove_checkpoint(source)
        except OSError as error:
            rank_zero_warn(f"`{source}` has lost its place but stays: {error}")


def _same(one: str, other: str) -> bool:
    return location.absolute(one) == location.absolute(other)
