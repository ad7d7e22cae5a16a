"""Deciding when a checkpoint is due, and which files it makes or replaces."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from lightgen_runtime.callbacks.checkpoint_names import (
    check_template,
    check_triggers,
    default_folder,
)
from lightgen_runtime.callbacks.kept_files import KeptFiles
from lightgen_runtime.callbacks.monitored import (
    epoch_end_has_metrics,
    missing_metric_message,
    validates,
    validation_follows,
)
from lightgen_runtime.callbacks.timer import AGREE_EVERY_N_BATCHES
from lightgen_runtime.io import location
from lightgen_runtime.io.folder_leftovers import sweep_folders
from lightgen_runtime.utilities.atomic_write import sweep_temporaries
from lightgen_runtime.utilities.exceptions import (
    MisconfigurationException,
    NonFiniteLossError,
)
from lightgen_runtime.utilities.rank_zero import rank_zero_info, rank_zero_warn

if TYPE_CHECKING:
    from lightgen_runtime.callbacks.callback import StepOutput
    from lightgen_runtime.core.module import LightningModule
    from lightgen_runtime.trainer.trainer import Trainer


class ModelCheckpoint(KeptFiles):
    """Save checkpoints while training: the best ones, the last one, or all.

    Args:
        dirpath: Folder of the files, or an address such as `s3://bucket/run`; `None` is
            `checkpoints` in the folder of the run's first logger, or in
            `default_root_dir` without a logger.
        filename: Template without extension, e.g. `{epoch}-{val_loss:.2f}`; `None` is
            `{epoch}-{step}`. A metric that was not logged counts as 0.
        monitor: Name of the logged metric to rank by; `None` ranks by age.
        verbose: Tell about each file written.
        save_last: Also keep `last.ckpt`, the newest state; `"link"` makes it a link to
            the newest file where there is one.
        save_top_k: How many of the best to keep; 0 for none, -1 for all. Without
            `monitor` it must be 0, 1 (the newest) or -1.
        save_on_exception: Save once more when training ends by an exception.
        save_weights_only: Leave optimizers, schedulers and counters out.
        mode: `min` or `max`: which end of the metric is good. NaN is always the worst.
        auto_insert_metric_name: Write `name=value` rather than `value` into file names.
        every_n_train_steps: Save each time so many more optimizer steps are done.
        train_time_interval: Save whenever so much time has passed, at a batch's end.
        every_n_epochs: Save every so many epochs. Of these three at most one may be
            given; the default is every epoch.
        save_on_train_epoch_end: Save at the end of the training epoch (true) or of
            validation (false); `None` chooses the one that has the metrics.
        enable_version_counter: Append `-v1`, `-v2`, ... rather than overwrite a file.

    A disk that is full, or the like, costs the save and not the fit: a warning says so, and
    the next save tries again. A resumed fit takes over the files that it has written to the
    folder, also those that are newer than what is loaded.

    Compat: Lightning ends the fit, and forgets the newer files.

    Raises:
        MisconfigurationException: At construction for an impossible combination; during
            the run when nobody logs `monitor`.
    """

    def __init__(
        self,
        dirpath: str | Path | None = None,
        filename: str | None = None,
        monitor: str | None = None,
        verbose: bool = False,
        save_last: bool | Literal["link"] | None = None,
        save_top_k: int = 1,
        save_on_exception: bool = False,
        save_weights_only: bool = False,
        mode: str = "min",
        auto_insert_metric_name: bool = True,
        every_n_train_steps: int | None = None,
        train_time_interval: timedelta | None = None,
        every_n_epochs: int | None = None,
        save_on_train_epoch_end: bool | None = None,
        enable_version_counter: bool = True,
    ) -> None:
        super().__init__(mode)
        self.dirpath = None if dirpath is None else location.normal(dirpath)
        self.filename = filename
        self.monitor = monitor
        self.verbose = verbose
        self.save_last = save_last
        self.save_top_k = save_top_k
        self.save_on_exception = save_on_exception
        self.save_weights_only = save_weights_only
        self.auto_insert_metric_name = auto_insert_metric_name
        if (every_n_train_steps, train_time_interval, every_n_epochs) == (None,) * 3:
            every_n_epochs = 1
        self._every_n_train_steps = every_n_train_steps or 0
        self._train_time_interval = train_time_interval
        self._every_n_epochs = every_n_epochs or 0
        self._save_on_train_epoch_end = save_on_train_epoch_end
        self._enable_version_counter = enable_version_counter
        self._check_arguments()

        self._trains = False
        self._steps_done = self._first_step = 0
        self._last_time_due = 0.0
        self._has_validated = False
        self._waits_for_metric = False
        # Read at every batch: nothing but this may run when no batch can be due.
        self._is_step_triggered = bool(
            every_n_train_steps or train_time_interval is not None
        )

    def _check_arguments(self) -> None:
        if self.mode not in ("min", "max"):
            raise MisconfigurationException(
                f"`mode={self.mode!r}` is not accepted. Use `min` when a smaller "
                f"`{self.monitor}` is better, else `max`."
            )
        if self.save_top_k < -1:
            raise MisconfigurationException(
                f"`save_top_k={self.save_top_k}` is not accepted. Use -1 for all, 0 for "
                "none, or how many to keep."
            )
        if self.monitor is None and self.save_top_k not in (-1, 0, 1):
            raise MisconfigurationException(
                f"`save_top_k={self.save_top_k}` needs a metric to rank by. Set "
                "`monitor` to one, or use `save_top_k` -1 (all), 0 (none) or 1 (newest)."
            )
        check_triggers(
            every_n_train_steps=self._every_n_train_steps,
            every_n_epochs=self._every_n_epochs,
            train_time_interval=self._train_time_interval,
        )
        if self.filename is not None:
            check_template(self.filename)

    # Configuration that other code reads.

    @property
    def every_n_epochs(self) -> int:
        """Epochs between two saves; 0 when epochs do not count."""
        return self._every_n_epochs

    @property
    def state_key(self) -> str:
        """Tell apart several checkpoint callbacks of one run."""
        return self._generate_state_key(
            monitor=self.monitor,
            mode=self.mode,
            every_n_train_steps=self._every_n_train_steps,
            every_n_epochs=self._every_n_epochs,
            train_time_interval=self._train_time_interval,
        )

    # When.

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Settle the folder of the files."""
        own = self.dirpath or default_folder(trainer)
        self.dirpath = str(trainer.strategy.broadcast(own))
        self._trains = False
        if stage != "fit":
            return
        self._has_validated = False
        self._waits_for_metric = False
        self._failed_saves = []
        self._causes = {}
        self._last_path_saved = ""
        self._displaced, self._redone, self._unsettled = [], set(), []
        if trainer.is_global_zero and not location.is_remote(self.dirpath):
            sweep_temporaries(Path(self.dirpath))
            sweep_folders(Path(self.dirpath))
        if not self._enable_version_counter and location.names_in(self.dirpath):
            rank_zero_warn(
                f"The checkpoint folder `{self.dirpath}` is not empty, and files of the "
                "same name in it are going to be overwritten "
                "(`enable_version_counter=False`)."
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock and the counters of this fit; take over what it has left."""
        self._trains = True
        if trainer.global_step != self._last_global_step_saved:
            self._last_global_step_saved = 0  # of another run, whose steps are not ours
        self._last_time_due = time.monotonic()
        self._steps_done = self._first_step = trainer.global_step
        if trainer.ckpt_path is not None and not trainer.fast_dev_run:
            self._adopt(trainer)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: StepOutput,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save when a number of steps or a time is reached."""
        if self._is_step_triggered and self._is_batch_due(trainer):
            self._save_at_step(trainer)

    def _is_batch_due(self, trainer: Trainer) -> bool:
        if self._train_time_interval is not None:
            return self._is_time_due(trainer, self._train_time_interval)
        # Not `%`: manual optimization may pass over the exact multiple.
        former, self._steps_done = self._steps_done, trainer.progress.global_step
        every = self._every_n_train_steps
        return self._steps_done // every > former // every

    def _is_time_due(self, trainer: Trainer, interval: timedelta) -> bool:
        several = trainer.world_size > 1
        if several and trainer.progress.total_batches % AGREE_EVERY_N_BATCHES:
            return False
        due = time.monotonic() - self._last_time_due >= interval.total_seconds()
        if several:
            due = trainer.strategy.broadcast(due)
        if due:
            self._last_time_due = time.monotonic()
        return due

    def _save_at_step(self, trainer: Trainer) -> None:
        if self._must_not_save(trainer):
            return
        metrics = self._metrics_to_rank(trainer)
        # A metric of validation or of the epoch's end cannot be there yet, or is that of
        # the validation before.
        self._waits_for_metric = self.monitor is not None and (
            self.monitor not in metrics
            or (
                validation_follows(trainer) and not self._is_epoch_end_the_time(trainer)
            )
        )
        if not self._waits_for_metric:
            self._save(trainer, metrics)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save when validation is where this callback's metric comes from."""
        self._has_validated = not trainer.sanity_checking
        if self._must_not_save(trainer):
            return
        if self._waits_for_metric:
            self._save_at_step(trainer)
        elif not self._is_epoch_end_the_time(trainer):
            self._save_at_epoch(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save when the epoch's end is where this callback's metric comes from."""
        if trainer.fast_dev_run:
            return
        if self._has_validated or not validates(trainer):
            self._check_monitor(trainer)
        if self._must_not_save(trainer):
            return
        if self._waits_for_metric:
            self._save_at_step(trainer)
        elif self._is_epoch_end_the_time(trainer):
            self._save_at_epoch(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep at least the last state where nothing was due in the whole fit."""
        self._settle(trainer)
        has_trained = trainer.global_step > self._first_step
        is_due = self.save_last and not self._last_path_saved and has_trained
        if is_due and not trainer.fast_dev_run:
            self._save_newest(trainer, self._metrics_to_rank(trainer))
        self._remove(trainer, [])

    def _save_at_epoch(self, trainer: Trainer) -> None:
        every = self._every_n_epochs
        if every and (trainer.current_epoch + 1) % every == 0:
            self._save(trainer, self._metrics_to_rank(trainer))

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Save what there is, unless the weights are known to be broken."""
        if (
            not self.save_on_exception
            or isinstance(exception, NonFiniteLossError)
            or self._must_not_save(trainer)
        ):
            return
        self._settle(trainer)
        metrics = self._metrics_to_rank(trainer)
        path = self._free_path(trainer, metrics, "")
        self._write(trainer, path, "interrupted")
        if not trainer.strategy.is_parted:  # else no fit may be able to go on from it
            self._save_newest(trainer, metrics)
        rank_zero_info(
            f"Saved `{path}` because of {type(exception).__name__}: {exception}"
        )

    def _must_not_save(self, trainer: Trainer) -> bool:
        return bool(
            trainer.fast_dev_run
            or not self._trains
            or trainer.sanity_checking
            or self._last_global_step_saved == trainer.global_step
        )

    def _is_epoch_end_the_time(self, trainer: Trainer) -> bool:
        """Choose the end of the training epoch or of validation, whichever is later."""
        if self._save_on_train_epoch_end is not None:
            return self._save_on_train_epoch_end
        return epoch_end_has_metrics(trainer)

    # What.

    def _metrics_to_rank(self, trainer: Trainer) -> dict[str, Tensor]:
        metrics = dict(trainer.callback_metrics)
        for name, value in (
            ("epoch", trainer.current_epoch),
            ("step", trainer.global_step),
        ):
            logged = metrics.get(name)
            metrics[name] = torch.tensor(value) if logged is None else logged.int()
        if trainer.world_size == 1:
            return metrics
        # Every process ranks, names and removes by what the one that writes has seen.
        own = {name: value.cpu() for name, value in metrics.items()}
        agreed: dict[str, Tensor] = trainer.strategy.broadcast(own)
        return agreed

    def _check_monitor(self, trainer: Trainer) -> None:
        """Raise if the metric to rank by is not among those logged by now."""
        logged = trainer.callback_metrics
        if self.monitor is None or self.monitor in (*logged, "epoch", "step"):
            return
        message = missing_metric_message("ModelCheckpoint", self.monitor, logged)
        raise MisconfigurationException(
            f"{message} Call `self.log({self.monitor!r}, value)` in the module, or "
            "monitor one of these."
        )

    def _save(self, trainer: Trainer, metrics: dict[str, Tensor]) -> None:
        self._settle(trainer)
        self._save_best(trainer, metrics)
        self._save_newest(trainer, metrics)

    def _save_best(self, trainer: Trainer, metrics: dict[str, Tensor]) -> None:
        if self.save_top_k == 0:
            return
        if self.monitor is None:
            self._save_unranked(trainer, metrics)
            return
        if self.monitor not in metrics:
            if self._has_validated or not validates(trainer):
                self._check_monitor(trainer)
            return
        # A copy: the tensor that was logged may be a running sum.
        score = metrics[self.monitor].detach().to("cpu", copy=True)
        if self.check_monitor_top_k(trainer, score):
            self._save_ranked(trainer, metrics, score)
        elif self.verbose:
            rank_zero_info(
                f"Step {trainer.global_step}: `{self.monitor}` = {float(score):.5f} is "
                f"not among the best {self.save_top_k}"
            )

    def _save_unranked(self, trainer: Trainer, metrics: dict[str, Tensor]) -> None:
        former = self.best_model_path
        path = self._free_path(trainer, metrics, former)
        # One of all that are kept is in no rotation, and never makes room for another.
        role = "best" if self.save_top_k == 1 else None
        if self._write(trainer, path, role, best_model_path=path):
            self._remove(trainer, [former] if self.save_top_k == 1 else [])

    def _save_ranked(
        self, trainer: Trainer, metrics: dict[str, Tensor], score: Tensor
    ) -> None:
        kept = dict(self.best_k_models)
        again = self.format_checkpoint_name(metrics)
        if again in self._redone:
            kept.pop(again, None)
        displaced: list[str] = []
        while self.save_top_k != -1 and len(kept) >= self.save_top_k:
            displaced.append(self._best_and_worst(kept)[1])
            del kept[displaced[-1]]
        path = self._free_path(trainer, metrics, displaced[0] if displaced else "")
        if torch.isnan(score):
            score = self._no_score().to(score.dtype)
        kept[path] = score
        ranking = self._ranking(kept)
        if not self._write(trainer, path, "best", current_score=score, **ranking):
            return
        if self.verbose:
            rank_zero_info(
                f"Step {trainer.global_step}: `{self.monitor}` = {float(score):.5f} "
                f"saved as `{path}`"
            )
        self._remove(trainer, displaced)

    def _save_newest(self, trainer: Trainer, metrics: dict[str, Tensor]) -> None:
        if not self.save_last:
            return
        links = self.save_last == "link" and not location.is_remote(str(self.dirpath))
        former = self.last_model_path
        # Where the newest file is the last one itself, it is written anew.
        links = links and self._last_path_saved not in ("", former)
        links = links and self.save_top_k != 0
        if not links:
            self._settle(trainer)
        path = self._free_path(trainer, metrics, former, self.CHECKPOINT_NAME_LAST)
        if links:
            is_saved = self._link(trainer, path)
        else:
            is_saved = self._write(trainer, path, "last", last_model_path=path)
        if is_saved:
            self._remove(trainer, [former])
