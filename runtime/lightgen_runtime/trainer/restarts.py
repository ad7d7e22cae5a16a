"""Where a fit goes on that its job's launcher has started again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightgen_runtime.callbacks.model_checkpoint import ModelCheckpoint
from lightgen_runtime.io import location
from lightgen_runtime.io.folder_leftovers import put_back_former
from lightgen_runtime.io.store import Entry, read_manifest, reconcile, verify
from lightgen_runtime.trainer import job, slurm
from lightgen_runtime.trainer.interruption import job_file
from lightgen_runtime.trainer.records import marks_of_as_many
from lightgen_runtime.utilities.rank_zero import rank_zero_info, rank_zero_warn

if TYPE_CHECKING:
    from lightgen_runtime.loggers import Logger
    from lightgen_runtime.trainer.trainer import Trainer


def newest_of_job(trainer: Trainer) -> str | None:
    """Return the newest valid checkpoint that this fit wrote when it was started before.

    For rank 0. The first logger goes on in the folder of that start, if it is among its own.
    """
    if trainer.fast_dev_run:
        return None
    marks = job.marks(*fit_in_job(trainer), again=True)
    known = {*marks, *marks_of_as_many(marks, trainer.world_size)}
    folders = _folders(trainer) if known else []
    for folder in folders:
        if not location.is_remote(folder):
            put_back_former(Path(folder))
    found = [
        location.join(folder, name)
        for folder in folders
        if any(known & _marks_of(entry) for entry in read_manifest(folder).values())
        for name, entry in reconcile(folder).items()
        if known & _marks_of(entry) and _is_exact(entry)
    ]
    if (number := slurm.restarted_job()) is not None:
        found.append(job_file(trainer, number))
    there = [path for path in found if location.exists(path)]
    for path in sorted(there, key=location.modified_at, reverse=True):
        if (damage := verify(path)) is not None:
            rank_zero_warn(f"`{path}` is passed over: {damage}")
            continue
        rank_zero_info(
            f"`trainer.fit()` goes on from `{path}`, which it wrote before its job was "
            "started again"
        )
        _take_up_log(trainer, path)
        return path
    return None


def fit_in_job(trainer: Trainer) -> tuple[str | int, ...]:
    """Return what tells this fit from the others of its program."""
    return (*trainer.place_in_job, job.task(), type(trainer.lightning_module).__name__)


def _marks_of(entry: Entry) -> set[Any]:
    listed = entry.get("jobs")
    return set(listed) if isinstance(listed, list) else set()


def _is_exact(entry: Entry) -> bool:
    """Tell whether a fit that goes on from the file ends with the same bits."""
    at_exception = entry["role"] == "interrupted" and entry["kept_by"] is not None
    return not (entry["weights_only"] or entry["role"] == "partial" or at_exception)


def _folders(trainer: Trainer) -> list[str]:
    """Return where the fit may have kept files, also under a former number of its log."""
    folders = [
        str(callback.dirpath)
        for callback in trainer.checkpoint_callbacks
        if isinstance(callback, ModelCheckpoint) and callback.dirpath
    ]
    if not trainer.loggers:
        folders.append(location.join(trainer.default_root_dir, "checkpoints"))
    for logger in trainer.loggers[:1]:
        root = _root_of(logger, trainer)
        folders += [
            location.join(location.join(root, version), "checkpoints")
            for version in location.names_in(root, folders=True)
        ]
    return list(dict.fromkeys(folders))


def _root_of(logger: Logger, trainer: Trainer) -> str:
    root = str(logger.save_dir or trainer.default_root_dir)
    return location.join(root, str(logger.name)) if logger.name else root


def _take_up_log(trainer: Trainer, path: str) -> None:
    """Have the first logger, whose folder the checkpoints are in, go on in that one."""
    version_folder = location.split(location.split(path)[0])[0]
    root, version = location.split(version_folder)
    for logger in trainer.loggers[:1]:
        if location.absolute(root) == location.absolute(_root_of(logger, trainer)):
            number = version.removeprefix("version_")
            is_number = number != version and number.isdecimal()
            logger.adopt_version(int(number) if is_number else version)
