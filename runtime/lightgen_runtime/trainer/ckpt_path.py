"""Which file `ckpt_path` means: a path, or a word for one that some run has written."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from lightgen_runtime.callbacks.checkpoint_names import default_folder
from lightgen_runtime.callbacks.model_checkpoint import ModelCheckpoint
from lightgen_runtime.callbacks.on_exception_checkpoint import OnExceptionCheckpoint
from lightgen_runtime.io import location
from lightgen_runtime.io.folder_leftovers import put_back_former
from lightgen_runtime.io.store import newest_valid, read_manifest
from lightgen_runtime.trainer import job, slurm
from lightgen_runtime.trainer.interruption import INTERRUPTED_PREFIX, job_file
from lightgen_runtime.trainer.restarts import fit_in_job, newest_of_job
from lightgen_runtime.utilities.exceptions import (
    CheckpointFormatError,
    CheckpointNotFoundError,
    LightgenRuntimeError,
    MisconfigurationException,
)
from lightgen_runtime.utilities.rank_zero import rank_zero_warn

if TYPE_CHECKING:
    from lightgen_runtime.trainer.trainer import Trainer

# Source: the name under which Lightning saves when a cluster ends a job.
_HPC_FILE = re.compile(r"hpc_ckpt_(\d+)(?:-[0-9a-f]{8})?\.ckpt")


class Choice(NamedTuple):
    """The checkpoint that a run loads.

    Attributes:
        path: Of the file, or None for none.
        others_do: Whether a damaged file may be replaced by another of its folder: a word
            asks for the newest, a path for that file.
    """

    path: str | None
    others_do: bool


def choose_checkpoint(
    trainer: Trainer, ckpt_path: str | Path | None, model_given: bool, fn: str
) -> Choice:
    """Turn what an entry point was given into a file. Collective: rank 0 looks.

    Args:
        trainer: Whose checkpoint callbacks and folders are meant.
        ckpt_path: A path; "best": the best of this trainer; "last": the newest in the
            folders of its checkpoint callbacks, whoever wrote it; "hpc": the newest that
            a cluster's end of job left in `default_root_dir`; or None.
        model_given: Whether the caller passed a model.
        fn: "fit", "validate", "test" or "predict".

    Raises:
        CheckpointNotFoundError: There is no such checkpoint.
        MisconfigurationException: The word means a registry of models.
    """

    def look() -> tuple[Choice, list[str]]:
        if fn == "fit" and ckpt_path is None:
            own = newest_of_job(trainer)
            choice = Choice(own or _after_exception(trainer), others_do=own is None)
        else:
            path = _resolved(trainer, ckpt_path, model_given, fn)
            choice = Choice(path, others_do=ckpt_path in ("last", "hpc"))
        return choice, job.marks(*fit_in_job(trainer)) if fn == "fit" else []

    choice, trainer.job_marks = trainer.strategy.on_rank_zero(look)
    return choice


def load_chosen(
    trainer: Trainer, choice: Choice, fn: str
) -> tuple[dict[str, Any], str]:
    """Read the chosen checkpoint in every process, or the newest valid one in its place.

    Returns:
        What was read, and the path of its file.

    Raises:
        CheckpointFormatError: It is damaged, and so is all that could take its place.
        CheckpointNotFoundError: There is no such file.
    """
    strategy, path = trainer.strategy, str(choice.path)
    checkpoint: dict[str, Any] = {}
    error: Exception | None = None
    try:
        checkpoint = strategy.load_checkpoint(path)
    except (LightgenRuntimeError, OSError) as caught:
        error = caught
    if strategy.reduce_boolean_decision(error is None):
        return checkpoint, path
    folder, name = location.split(path)
    other = None
    if choice.others_do:
        weights_do = fn != "fit"
        other = strategy.on_rank_zero(
            lambda: newest_valid(folder, weights_only=weights_do, but=[name])
        )
    if other is None:
        raise error or CheckpointFormatError(
            f"`{path}` cannot be read in another process, whose error says more"
        )
    is_damaged = isinstance(error, CheckpointFormatError)
    rank_zero_warn(
        f"`{path}` {'is damaged' if is_damaged else 'cannot be read'}. `{other}` is taken "
        f"in its place, the newest valid checkpoint of its folder. What is wrong: {error}"
    )
    return strategy.load_checkpoint(other), other


def _resolved(
    trainer: Trainer, ckpt_path: str | Path | None, model_given: bool, fn: str
) -> str | None:
    call = f"`trainer.{fn}(ckpt_path={str(ckpt_path)!r})`"
    if ckpt_path is None:
        return None if model_given else _best(trainer) or None
    if ckpt_path == "best":
        return _best(trainer) or _no_best(trainer, call)
    if ckpt_path == "last":
        path = _last(trainer, fn)
        if path is None:
            _tell_of_no_last(trainer, call, fn)
        return path
    if ckpt_path == "hpc":
        return _hpc(trainer) or _no_hpc(trainer, call)
    word = str(ckpt_path).partition(":")[0].lower()
    if word == "registry" and not location.exists(ckpt_path):
        raise MisconfigurationException(
            f"{call}: this runtime downloads nothing. Fetch the file first, for example "
            "with `litmodels.download_model(...)`, and give its path."
        )
    return str(ckpt_path)


def _best(trainer: Trainer) -> str:
    paths = [
        str(callback.best_model_path or "")
        for callback in trainer.checkpoint_callbacks
        if hasattr(callback, "best_model_path")
    ]
    if len(paths) > 1 and paths[0]:
        rank_zero_warn(
            f"this trainer has {len(paths)} checkpoint callbacks; the best of the first is "
            f"taken, `{paths[0]}`"
        )
    return paths[0] if paths else ""


def _no_best(trainer: Trainer, call: str) -> NoReturn:
    if trainer.fast_dev_run:
        reason = "a trial run (`fast_dev_run`) saves nothing. Give the path of a file."
    elif trainer.checkpoint_callback is None:
        reason = (
            "this trainer has no checkpoint callback. Add a `ModelCheckpoint` and fit, "
            "or give a path."
        )
    else:
        reason = (
            "this trainer has saved no checkpoint. Fit first with a `ModelCheckpoint`, or "
            "give a path."
        )
    raise CheckpointNotFoundError(f"{call}: {reason}")


def _after_exception(trainer: Trainer) -> str | None:
    """Return the newest checkpoint if an exception has left one, to go on unasked.

    Compat: Lightning also goes on from what earlier runs that ended well have left.
    """
    if trainer.fast_dev_run or not _left_by_exceptions(trainer):
        return None
    left = _resumable(_left_by_exceptions(trainer)) + _interrupted(trainer)
    if _newest(left) is None:
        return None
    path = _last(trainer, "fit")
    rank_zero_warn(
        f"`trainer.fit()` goes on from `{path}`, because an exception ended the fit before. "
        "Remove what its `OnExceptionCheckpoint` has left to begin anew."
    )
    return path


def _left_by_exceptions(trainer: Trainer) -> list[str]:
    return [
        callback.ckpt_path
        for callback in trainer.callbacks
        if isinstance(callback, OnExceptionCheckpoint)
    ]


def _resumable(paths: list[str]) -> list[str]:
    """Leave out what one of several processes wrote inside an epoch."""
    kept = []
    for path in filter(None, paths):
        if _entry(path).get("role") != "partial":
            kept.append(path)
    return kept


def _interrupted(trainer: Trainer) -> list[str]:
    return [
        path
        for callback in trainer.checkpoint_callbacks
        if isinstance(callback, ModelCheckpoint)
        for path in _files_called(
            INTERRUPTED_PREFIX, callback, _folder(callback, trainer)
        )
    ]


def _last(trainer: Trainer, fn: str) -> str | None:
    """Return the newest file called last, or saved because of an exception or a signal.

    If there is none, any file that this trainer itself has saved will do.
    """
    found = _left_by_exceptions(trainer) + _interrupted(trainer)
    saved: list[str] = []
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint):
            if not location.is_remote(_folder(callback, trainer)):
                put_back_former(Path(_folder(callback, trainer)))
            name = callback.CHECKPOINT_NAME_LAST
            found += _files_called(name, callback, _folder(callback, trainer))
            saved += [*callback.best_k_models, callback.best_model_path]
    if fn == "fit":
        found, saved = _resumable(found), _resumable(saved)
    return _newest(found) or _newest(saved)


def newest_checkpoint(trainer: Trainer) -> str | None:
    """Return the newest file that the trainer's last fit has saved or gone on from."""
    known = [trainer.ckpt_path or "", trainer.interrupted_path or ""]
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint):
            known += [callback.best_model_path, callback.last_model_path]
            known += callback.best_k_models
        if isinstance(callback, OnExceptionCheckpoint):
            known.append(callback.ckpt_path)
    return _newest(known)


def has_left_state(trainer: Trainer) -> bool:
    """Tell whether the fit that was stopped has left what its job can go on from."""
    left = [*_left_by_exceptions(trainer), trainer.interrupted_path or ""]
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint):
            left.append(callback.last_model_path)
    return _newest(_resumable(left)) is not None


def _newest(paths: list[str]) -> str | None:
    """Return the file written last, or of its fit the one of the last step.

    Copying a run's folder leaves its files in any order of time.
    """
    there = [path for path in paths if path and location.exists(path)]
    newest = max(there, key=location.modified_at, default=None)
    entries = {path: _entry(path) for path in there}
    run = None if newest is None else entries[newest].get("run")
    if run is None:
        return newest
    of_run = [path for path in there if entries[path].get("run") == run]
    return max(
        of_run, key=lambda p: (entries[p].get("step") or 0, location.modified_at(p))
    )


def _entry(path: str) -> Mapping[str, Any]:
    folder, name = location.split(path)
    return read_manifest(folder).get(name, {})


def _folder(callback: ModelCheckpoint, trainer: Trainer) -> str:
    return str(callback.dirpath or default_folder(trainer))


def _files_called(start: str, callback: ModelCheckpoint, folder: str) -> list[str]:
    return [
        location.join(folder, name)
        for name in location.names_in(folder, folders=True)
        if name.endswith(callback.FILE_EXTENSION) and name.startswith(start)
    ]


def _tell_of_no_last(trainer: Trainer, call: str, fn: str) -> None:
    """Warn that a fit begins anew, so that a job may always ask for its last state.

    Compat: Lightning also evaluates and predicts without a checkpoint then.
    """
    looked_in = [
        _folder(callback, trainer)
        for callback in trainer.checkpoint_callbacks
        if isinstance(callback, ModelCheckpoint)
    ]
    message = (
        f"{call}: no file called last*.ckpt in {', '.join(looked_in)}"
        if looked_in
        else f"{call}: this trainer has no `ModelCheckpoint` to look for one"
    )
    remedy = (
        "`ModelCheckpoint(dirpath=..., save_last=True)` keeps one in a folder that stays "
        "the same from run to run"
    )
    if fn != "fit":
        raise CheckpointNotFoundError(f"{message}. Give a path; {remedy}.")
    rank_zero_warn(f"{message}; the fit begins anew. {remedy}.")


def _hpc(trainer: Trainer) -> str | None:
    root, number = trainer.default_root_dir, slurm.batch_job()
    if number is not None and location.exists(own := job_file(trainer, number)):
        return own
    of_jobs: dict[int, list[str]] = defaultdict(list)
    for name in location.names_in(root, folders=True):
        match = _HPC_FILE.fullmatch(name)
        if (
            match is not None and match.group(1) != number
        ):  # else of another fit of ours
            of_jobs[int(match.group(1))].append(location.join(root, name))
    return _newest(of_jobs[max(of_jobs)]) if of_jobs else None


def _no_hpc(trainer: Trainer, call: str) -> NoReturn:
    raise CheckpointNotFoundError(
        f"{call}: no hpc_ckpt_*.ckpt in `{trainer.default_root_dir}`. Set "
        "`Trainer(default_root_dir=...)` to where the job left it, or give a path."
    )
