"""Which file `ckpt_path` means: a path, or a word for one that some run has written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from lightgen_runtime.callbacks.checkpoint_names import default_folder
from lightgen_runtime.callbacks.model_checkpoint import ModelCheckpoint
from lightgen_runtime.callbacks.on_exception_checkpoint import OnExceptionCheckpoint
from lightgen_runtime.utilities.exceptions import (
    CheckpointNotFoundError,
    MisconfigurationException,
)
from lightgen_runtime.utilities.rank_zero import rank_zero_warn

if TYPE_CHECKING:
    from lightgen_runtime.trainer.trainer import Trainer

# Source: the name under which Lightning saves when a cluster ends a job.
_HPC_FILE = re.compile(r"hpc_ckpt_(\d+)\.ckpt")


def resolve_ckpt_path(
    trainer: Trainer, ckpt_path: str | Path | None, model_given: bool, fn: str
) -> str | None:
    """Turn what an entry point was given into the path of a file, or None for no file.

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
    call = f"`trainer.{fn}(ckpt_path={str(ckpt_path)!r})`"
    if ckpt_path is None:
        if fn == "fit":
            return _after_exception(trainer)
        return None if model_given else _best(trainer) or None
    if ckpt_path == "best":
        return _best(trainer) or _no_best(trainer, call)
    if ckpt_path == "last":
        path = _last(trainer)
        if path is None:
            _tell_of_no_last(trainer, call, fn)
        return path
    if ckpt_path == "hpc":
        return _hpc(trainer) or _no_hpc(trainer, call)
    word = str(ckpt_path).partition(":")[0].lower()
    if word == "registry" and not Path(ckpt_path).exists():
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
    if trainer.fast_dev_run or _newest(_left_by_exceptions(trainer)) is None:
        return None
    path = _last(trainer)
    rank_zero_warn(
        f"`trainer.fit()` goes on from `{path}`, because an exception ended the fit before. "
        "Remove what its `OnExceptionCheckpoint` has left to begin anew."
    )
    return path


def _left_by_exceptions(trainer: Trainer) -> list[Path]:
    return [
        Path(callback.ckpt_path)
        for callback in trainer.callbacks
        if isinstance(callback, OnExceptionCheckpoint)
    ]


def _last(trainer: Trainer) -> str | None:
    """Return the newest file that is called last, or was saved because of an exception.

    If there is none, any file that this trainer itself has saved will do.
    """
    found = _left_by_exceptions(trainer)
    saved: list[Path] = []
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint):
            found += _files_called_last(callback, _folder(callback, trainer))
            saved += map(Path, [*callback.best_k_models, callback.best_model_path])
    return _newest(found) or _newest(saved)


def _newest(paths: list[Path]) -> str | None:
    there = [path for path in paths if path.is_file()]
    newest = max(there, key=lambda path: path.stat().st_mtime_ns, default=None)
    return None if newest is None else str(newest)


def _folder(callback: ModelCheckpoint, trainer: Trainer) -> Path:
    return Path(callback.dirpath or default_folder(trainer))


def _files_called_last(callback: ModelCheckpoint, folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [
        path
        for path in folder.iterdir()
        if path.suffix == callback.FILE_EXTENSION
        and path.stem.startswith(callback.CHECKPOINT_NAME_LAST)
    ]


def _tell_of_no_last(trainer: Trainer, call: str, fn: str) -> None:
    """Warn that a fit begins anew, so that a job may always ask for its last state.

    Compat: Lightning also evaluates and predicts without a checkpoint then.
    """
    looked_in = [
        str(_folder(callback, trainer))
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
    root = Path(trainer.default_root_dir)
    numbered = [
        (int(match.group(1)), path)
        for path in (root.iterdir() if root.is_dir() else ())
        if (match := _HPC_FILE.fullmatch(path.name)) is not None
    ]
    return str(max(numbered)[1]) if numbered else None


def _no_hpc(trainer: Trainer, call: str) -> NoReturn:
    raise CheckpointNotFoundError(
        f"{call}: no hpc_ckpt_*.ckpt in `{trainer.default_root_dir}`. Set "
        "`Trainer(default_root_dir=...)` to where the job left it, or give a path."
    )
