"""The files that a checkpoint callback keeps: ranking, names, writing and removing.

What a checkpoint holds and how it reaches the disk is the Trainer's business; when one is
due is `model_checkpoint`'s.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor

from lightgen_runtime.callbacks.adoption import (
    OwnFile,
    is_inside,
    of_role,
    own_files,
    still_there,
)
from lightgen_runtime.callbacks.checkpoint import Checkpoint
from lightgen_runtime.callbacks.checkpoint_names import fill_template, link_file
from lightgen_runtime.callbacks.finite_loss import FiniteLoss
from lightgen_runtime.io import location
from lightgen_runtime.io.async_checkpoint_io import AsyncCheckpointIO
from lightgen_runtime.io.store import EXTENSION
from lightgen_runtime.utilities.exceptions import CheckpointWriteError
from lightgen_runtime.utilities.rank_zero import rank_zero_info, rank_zero_warn

if TYPE_CHECKING:
    from lightgen_runtime.callbacks.model_checkpoint import ModelCheckpoint
    from lightgen_runtime.core.module import LightningModule
    from lightgen_runtime.trainer.trainer import Trainer


class KeptFiles(Checkpoint):
    """Keep the best, the newest or all of the files that a subclass decides to write.

    Args:
        mode: `min` or `max`: which end of the score is good.
    """

    CHECKPOINT_JOIN_CHAR = "-"
    CHECKPOINT_EQUALS_CHAR = "="
    CHECKPOINT_NAME_LAST = "last"
    FILE_EXTENSION = EXTENSION
    STARTING_VERSION = 1

    dirpath: str | None
    filename: str | None
    monitor: str | None
    save_last: bool | Literal["link"] | None
    save_top_k: int
    save_weights_only: bool
    auto_insert_metric_name: bool
    _enable_version_counter: bool

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.current_score: Tensor | None = None
        self.best_k_models: dict[str, Tensor] = {}
        self.kth_best_model_path = ""
        self.kth_value = self._no_score()
        self.best_model_score: Tensor | None = None
        self.best_model_path = ""
        self.last_model_path = ""
        self._last_path_saved = ""
        self._records: dict[str, dict[str, Any]] = {}  # of the file being written
        self._displaced: list[str] = []  # to be removed once another is written
        self._redone: set[str] = set()  # own files from behind where the fit goes on
        self._failed_saves: list[str] = []
        self._causes: dict[str, None] = {}  # of these, each once
        # Files that may still be being written, and what was true before them.
        self._unsettled: list[tuple[str, dict[str, Any]]] = []
        self._last_global_step_saved = 0

    def state_dict(self) -> dict[str, Any]:
        """Return scores and paths so far."""
        return {
            "monitor": self.monitor,
            "best_model_score": self.best_model_score,
            "best_model_path": self.best_model_path,
            "current_score": self.current_score,
            "dirpath": self.dirpath,
            "best_k_models": self.best_k_models,
            "kth_best_model_path": self.kth_best_model_path,
            "kth_value": self.kth_value,
            "last_model_path": self.last_model_path,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Adopt the files of the run that is resumed, if they are in this folder.

        With another `dirpath` only `best_model_path` is taken over: files of a folder
        that is not ours are never ranked against ours, nor removed.
        """
        _check_state(state_dict)
        self.best_model_path = state_dict["best_model_path"]
        former = state_dict.get("dirpath", self.dirpath)
        if former != self.dirpath:
            rank_zero_info(
                f"The checkpoint folder was `{former}` and is now `{self.dirpath}`: "
                "the ranking starts anew, the former files stay as they are."
            )
            return
        self.best_model_score = state_dict["best_model_score"]
        self.kth_best_model_path = state_dict["kth_best_model_path"]
        self.kth_value = state_dict["kth_value"]
        self.best_k_models = dict(state_dict["best_k_models"])
        self.last_model_path = state_dict["last_model_path"]

    def _adopt(self, trainer: Trainer) -> None:
        """Go by the files that are there, which may be newer than what was loaded.

        What a kill has left beyond those to keep is removed after the next save.
        """
        folder = str(self.dirpath)
        known = dict.fromkeys([*self.best_k_models, self.best_model_path], "best")
        known[self.last_model_path] = "last"
        known.pop("", None)
        owner = (self.state_key, trainer.fit_id)
        deep = "/" in (self.filename or "")
        names = (self.FILE_EXTENSION, self.CHECKPOINT_NAME_LAST)
        source = str(trainer.ckpt_path)
        files, there = trainer.strategy.on_rank_zero(
            lambda: (
                own_files(folder, *names, deep, owner, known),
                still_there(known, source),
            )
        )
        self._redone = {
            file.path for file in files if (file.step or 0) > trainer.global_step
        }
        last = of_role(files, "last")
        if self.save_last and (last or is_inside(self.last_model_path, folder)):
            former = self.last_model_path if self.last_model_path in there else ""
            self.last_model_path = last[-1].path if last else former
            self._displaced += [file.path for file in last[:-1]]
        if self.monitor is not None and self.save_top_k != 0:
            self._adopt_ranked(files, folder, there)
        elif self.monitor is None and self.save_top_k != 0:
            newest = of_role(files, "best", None)
            if newest or is_inside(self.best_model_path, folder):
                former = self.best_model_path if self.best_model_path in there else ""
                self.best_model_path = newest[-1].path if newest else former
            if self.save_top_k == 1:
                rotated = [file.path for file in of_role(files, "best")]
                self._displaced += [p for p in rotated if p != self.best_model_path]

    def _adopt_ranked(
        self, files: list[OwnFile], folder: str, there: Collection[str]
    ) -> None:
        remembered = {
            location.absolute(path): score for path, score in self.best_k_models.items()
        }
        kept: dict[str, Tensor] = {}
        for file in of_role(files, "best"):
            if file.score is not None:
                kept[file.path] = torch.tensor(file.score)
            elif (at := location.absolute(file.path)) in remembered:
                kept[file.path] = remembered[at]
        listed = {location.absolute(file.path) for file in files}
        kept |= {
            path: score
            for path, score in self.best_k_models.items()
            if path in there and location.absolute(path) not in listed
        }
        while self.save_top_k != -1 and len(kept) > self.save_top_k:
            worst = self._best_and_worst(kept)[1]
            self._displaced.append(worst)
            del kept[worst]
        if kept:
            vars(self).update(self._ranking(kept))
        elif self.best_k_models or is_inside(self.best_model_path, folder):
            self.best_k_models, self.best_model_score = {}, None
            self.best_model_path = self.kth_best_model_path = ""
            self.kth_value = self._no_score()

    # Ranking.

    def check_monitor_top_k(
        self, trainer: Trainer, current: Tensor | None = None
    ) -> bool:
        """Tell whether a score of `current` belongs among the files to keep."""
        if current is None:
            return False
        if self.save_top_k == -1:
            return True
        # A resumed run may have kept more files than are to be kept from now on.
        is_better = torch.lt if self.mode == "min" else torch.gt
        not_beaten = sum(
            not is_better(current, score) for score in self.best_k_models.values()
        )
        return not_beaten < self.save_top_k

    def _ranking(self, kept: dict[str, Tensor]) -> dict[str, Any]:
        """Return the attributes that say that `kept` are the files to keep."""
        best, worst = self._best_and_worst(kept)
        is_full = self.save_top_k in (-1, len(kept))
        return {
            "best_k_models": kept,
            "best_model_path": best,
            "best_model_score": kept[best],
            "kth_best_model_path": worst if is_full else "",
            "kth_value": kept[worst] if is_full else self._no_score(),
        }

    def _best_and_worst(self, scores: Mapping[str, Tensor]) -> tuple[str, str]:
        """Return the files of the best and the worst score; of equals the oldest."""
        values = {path: float(score) for path, score in scores.items()}
        smallest = min(values, key=values.__getitem__)
        largest = max(values, key=values.__getitem__)
        return (smallest, largest) if self.mode == "min" else (largest, smallest)

    def _no_score(self) -> Tensor:
        """Return what every score is better than."""
        return torch.tensor(torch.inf if self.mode == "min" else -torch.inf)

    # Files.

    def _link(self, trainer: Trainer, path: str) -> bool:
        """Make `path` point to the newest file; return whether it does, or soon will."""
        newest, checkpoint_io = self._last_path_saved, trainer.strategy.checkpoint_io
        make = partial(link_file, Path(newest), Path(path))
        if isinstance(checkpoint_io, AsyncCheckpointIO):
            if trainer.is_global_zero:
                checkpoint_io.after_save(newest, path, make)
            former = {"last_model_path": self.last_model_path}
            self._unsettled.append((newest, former))
        else:
            try:
                trainer.strategy.on_rank_zero(make)
            except OSError as error:
                self._warn_of_failure(trainer, CheckpointWriteError(path, error))
                return False
        self.last_model_path = path
        return True

    def _settle(self, trainer: Trainer) -> None:
        """Wait for what is still being written, and take back what could not be.

        Collective. Nothing is decided before: neither what a score is compared with, nor
        whether a name is free.
        """
        failed = trainer.strategy.failed_saves()
        for path, former in reversed(self._unsettled):
            if path in failed:
                vars(self).update(former)
        failed_here = {path: None for path, _ in self._unsettled if path in failed}
        self._failed_saves += failed_here
        self._unsettled.clear()

    def record_of(self, path: str) -> dict[str, Any] | None:
        """See `Checkpoint`."""
        return self._records.get(path)

    def _write(
        self, trainer: Trainer, path: str, role: str | None, **state: Any
    ) -> bool:
        """Write a file that holds `state` as ours; without the file it is not ours.

        Returns:
            Whether it is written. A full disk or the like does not end the fit.
        """
        for callback in trainer.callbacks:
            if isinstance(callback, FiniteLoss):
                callback.check(trainer)  # a file of weights alone asks no callback
        changing = (*state, "_last_path_saved", "_last_global_step_saved")
        former = {name: getattr(self, name) for name in changing}
        if path in self._redone:
            former["_redone"] = {*self._redone}
        vars(self).update(state)
        score = self.best_k_models.get(path)
        self._records[path] = {
            "kept_by": self.state_key,
            "score": None if score is None else float(score),
            "role": role,
        }
        try:
            trainer.save_checkpoint(path, self.save_weights_only)
        except CheckpointWriteError as error:
            vars(self).update(former)
            self._warn_of_failure(trainer, error)
            return False
        except BaseException:
            vars(self).update(former)
            raise
        finally:
            self._records.clear()
        self._unsettled.append((path, former))
        self._redone.discard(path)
        self._last_global_step_saved = trainer.global_step
        self._last_path_saved = path
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.after_save_checkpoint(cast("ModelCheckpoint", self))
        return True

    def _warn_of_failure(self, trainer: Trainer, error: CheckpointWriteError) -> None:
        self._failed_saves.append(error.path)
        self._causes[error.cause] = None
        rank_zero_warn(f"Step {trainer.global_step}: {error.as_warning()}")

    def teardown(
        self, trainer: Trainer, pl_module: LightningModule, stage: str
    ) -> None:
        """Say once more what could not be saved."""
        if self._unsettled:
            self._settle(trainer)
        if stage == "fit" and (failed := self._failed_saves):
            rank_zero_warn(
                f"This fit could not save {len(failed)} "
                f"checkpoint{'s' * (len(failed) > 1)} in `{self.dirpath}`, the last of them "
                f"`{failed[-1]}`: {'; '.join(self._causes) or 'warnings above say why'}."
            )

    def _remove(self, trainer: Trainer, displaced: list[str]) -> None:
        """Remove files that lost their place, if they are this run's own.

        One that cannot be removed is tried again the next time.
        """
        source, folder = trainer.ckpt_path, str(self.dirpath)
        kept = {*self.best_k_models, self.best_model_path, self.last_model_path}
        stuck = []
        for path in dict.fromkeys([*self._displaced, *displaced]):
            if path in kept or not path or not is_inside(path, folder):
                continue
            if source and location.absolute(path) == location.absolute(source):
                continue
            try:
                trainer.strategy.remove_checkpoint(path)
            except OSError as error:
                stuck.append(path)
                rank_zero_warn(f"`{path}` has lost its place but stays: {error}")
        self._displaced = stuck

    # Names.

    def format_checkpoint_name(
        self,
        metrics: Mapping[str, Tensor],
        filename: str | None = None,
        ver: int | None = None,
        prefix: str | None = None,
    ) -> str:
        """Return the path that these metrics give.

        Args:
            metrics: Scalars for the template.
            filename: The template; `None` takes that of this callback.
            ver: Number to append as `-v<ver>`.
            prefix: Put before the name, with a dash.
        """
        join = self.CHECKPOINT_JOIN_CHAR
        template = filename or self.filename or f"{{epoch}}{join}{{step}}"
        equals = self.CHECKPOINT_EQUALS_CHAR if self.auto_insert_metric_name else None
        name = fill_template(template, metrics, equals)
        if prefix:
            name = f"{prefix}{join}{name}"
        if ver is not None:
            name = f"{name}{join}v{ver}"
        return location.join(self.dirpath or "", f"{name}{self.FILE_EXTENSION}")

    def _free_path(
        self,
        trainer: Trainer,
        metrics: dict[str, Tensor],
        replaced: str,
        filename: str | None = None,
    ) -> str:
        """Return a path nobody uses, or that of the file about to be replaced."""
        path = self.format_checkpoint_name(metrics, filename)
        version = self.STARTING_VERSION
        while (
            self._enable_version_counter
            and path not in {replaced, *self._redone}
            and self.file_exists(path, trainer)
        ):
            path = self.format_checkpoint_name(metrics, filename, ver=version)
            version += 1
        return path

    def file_exists(self, filepath: str | Path, trainer: Trainer) -> bool:
        """Tell whether something is at `filepath`, for the process that writes."""
        return bool(trainer.strategy.broadcast(location.exists(filepath)))

    def to_yaml(self, filepath: str | Path | None = None) -> None:
        """Write the kept files and their scores as YAML.

        Args:
            filepath: Where to; `None` is `best_k_models.yaml` beside the checkpoints.
        """
        import yaml

        scores = {path: float(score) for path, score in self.best_k_models.items()}
        folder = self.dirpath or ""
        target = filepath or location.join(folder, "best_k_models.yaml")
        with location.writing(target) as stream:
            stream.write(yaml.safe_dump(scores).encode("utf-8"))


def _check_state(state: Mapping[str, Any]) -> None:
    """Refuse a state that no `state_dict` has returned, before a path of it is used."""
    names = ("best_model_path", "kth_best_model_path", "last_model_path")
    scores = state.get("best_k_models", {})
    paths = [*scores, *(state.get(name, "") for name in names)]
    if not all(isinstance(path, str) for path in paths):
        raise TypeError(f"paths are text, which these are not: {paths!r:.200}")
    for score in scores.values():
        float(score)
