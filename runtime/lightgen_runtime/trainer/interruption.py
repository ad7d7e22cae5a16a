"""The checkpoint that an interrupted fit leaves: where it is, and when it goes."""

from __future__ import annotations

import hashlib
from collections import Counter
from itertools import count
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

_fits: Counter[str] = Counter()  # that this process has begun, by their folder


def begin_fit(trainer: Trainer) -> None:
    """Note which of its job's fits this is: the n-th of a process in a folder.

    A program that is started again makes the same fits in the same order.
    """
    trainer.interrupted_path = None
    given = (
        callback.dirpath
        for callback in trainer.checkpoint_callbacks
        if isinstance(callback, ModelCheckpoint)
    )
    usual = location.join(trainer.default_root_dir, "checkpoints")
    folder = location.absolute(next(given, None) or usual)
    task = slurm.task() if trainer.world_size == 1 else 0
    _fits[folder] += 1
    numbers = (_fits[folder], task)
    digest = hashlib.sha256(f"{folder} {numbers}".encode()).hexdigest()[:8]
    is_plain = numbers == (1, 0) and _same(folder, usual)
    trainer.place_in_job = (folder, _fits[folder])
    trainer.job_mark = "" if is_plain else f"-{digest}"


def save_interrupted(trainer: Trainer) -> None:
    """Write the state of the fit, in place of what an earlier interruption left.

    Collective. Returns when the file is on the disk, or with a warning when it cannot be
    written; what was there stays then. A trainer without a `ModelCheckpoint`, and a trial
    run, write nothing.
    """
    path = trainer.strategy.on_rank_zero(lambda: _path(trainer))
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
    if location.exists(path):
        _remove_source(trainer, kept=path)


def forget_interrupted(trainer: Trainer, trained: bool) -> None:
    """Remove what an interruption left, once a newer checkpoint has its place.

    Collective.

    Args:
        trainer: Whose fit has ended well.
        trained: Whether it has trained at all.
    """
    source = trainer.ckpt_path
    if source is None or not trained or trainer.fast_dev_run:
        return
    trainer.strategy.failed_saves()  # what a thread writes counts too
    if _is_outdated(trainer, source):
        _remove_source(trainer, kept=None)


def job_file(trainer: Trainer, job: str) -> str:
    """Return where a fit of a SLURM job leaves its state.

    Source: Lightning's name for such a file; its number is that of the job here, so that
    jobs in one folder do not take each other's. A job's further fits, and those with a
    folder of their own, have a mark behind it.
    """
    name = f"hpc_ckpt_{job}{trainer.job_mark}.ckpt"
    return location.join(trainer.default_root_dir, name)


def _path(trainer: Trainer) -> str | None:
    folder = _folder(trainer)
    if folder is None or trainer.fast_dev_run:
        return None
    if (job := slurm.batch_job()) is not None:
        return job_file(trainer, job)
    stem, extension = f"step={trainer.global_step}", ModelCheckpoint.FILE_EXTENSION
    for version in count():
        number = f"-v{version}" if version else ""
        name = f"{INTERRUPTED_PREFIX}{stem}{number}{extension}"
        path = location.join(folder, name)
        source = trainer.ckpt_path
        if not location.exists(path) or (source and _same(source, path)):
            break
    return path


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
    is_of_job = name.startswith((f"hpc_ckpt_{job}.", f"hpc_ckpt_{job}-"))
    is_ours |= is_of_job and _same(parent, trainer.default_root_dir)
    if is_ours and not (kept is not None and _same(source, kept)):
        try:
            trainer.strategy.remove_checkpoint(source)
        except OSError as error:
            rank_zero_warn(f"`{source}` has lost its place but stays: {error}")


def _is_outdated(trainer: Trainer, source: str) -> bool:
    """Tell whether a callback keeps a checkpoint that is newer than `source`, or better."""
    if not location.exists(source):
        return False
    made = location.modified_at(source)
    for callback in trainer.checkpoint_callbacks:
        if not isinstance(callback, ModelCheckpoint):
            continue
        best, last = callback.best_model_path, callback.last_model_path
        for path in filter(None, (best, last, *callback.best_k_models)):
            is_better = path == best and callback.monitor is not None
            if location.exists(path) and (
                is_better or location.modified_at(path) >= made
            ):
                return True
    return False


def _same(one: location.AnyPath, other: location.AnyPath) -> bool:
    return location.absolute(one) == location.absolute(other)
