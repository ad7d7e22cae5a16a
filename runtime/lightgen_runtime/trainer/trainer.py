"""The `Trainer`: public arguments, entry points, read-only state, guaranteed teardown.

It contains no loop: each stage's story is told in `loops/`.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lightgen_runtime.accelerators import Accelerator
from lightgen_runtime.callbacks.callback import Callback
from lightgen_runtime.core.datamodule import LightningDataModule
from lightgen_runtime.core.module import LightningModule, attach
from lightgen_runtime.io import location
from lightgen_runtime.io.schema import note_record
from lightgen_runtime.loggers import Logger
from lightgen_runtime.loops.evaluate import evaluate_alone
from lightgen_runtime.loops.fit import run_fit
from lightgen_runtime.loops.predict import run_predict, which_predictions
from lightgen_runtime.loops.progress import Progress
from lightgen_runtime.loops.run import Run
from lightgen_runtime.loops.source import DataSource
from lightgen_runtime.precision.matmul import computing_products
from lightgen_runtime.profilers.profiler import Profiler
from lightgen_runtime.strategies import Strategy
from lightgen_runtime.trainer.build import (
    DEFAULT_MAX_EPOCHS,
    build_callbacks,
    build_parts,
    set_torch_flags,
)
from lightgen_runtime.trainer.checkpoint import dump_checkpoint
from lightgen_runtime.trainer.ckpt_path import choose_checkpoint
from lightgen_runtime.trainer.compile_flag import compile_options
from lightgen_runtime.trainer.environment import with_defaults_from_environment
from lightgen_runtime.trainer.init_module import tensors_made_for
from lightgen_runtime.trainer.interruption import begin_fit, forget_interrupted
from lightgen_runtime.trainer.launched import has_optimizers, is_launched, launch
from lightgen_runtime.trainer.lifecycle import (
    conclude,
    prepare,
    teardown,
    tell_of_exception,
)
from lightgen_runtime.trainer.plugged import Plugin
from lightgen_runtime.trainer.records import record_of
from lightgen_runtime.trainer.results import format_results
from lightgen_runtime.trainer.run_arguments import checked_model, sort_data
from lightgen_runtime.trainer.signals import requeue_if_due, stopping_when_asked
from lightgen_runtime.trainer.states import (
    RunningStage,
    TrainerFn,
    TrainerState,
    TrainerStatus,
)
from lightgen_runtime.trainer.trainer_arguments import refuse_unknown_arguments
from lightgen_runtime.trainer.trial import Trial, trial
from lightgen_runtime.trainer.view import TrainerView
from lightgen_runtime.utilities.exceptions import CheckpointWriteError, TunerExit
from lightgen_runtime.utilities.rank_zero import rank_zero_info, rank_zero_warn


class Trainer(TrainerView):
    """Runs a `LightningModule`: fitting, validating, testing, predicting.

    Args:
        accelerator: "auto" (the fastest there is), "cpu", "gpu", "cuda" or "mps"; or an
            `Accelerator`.
        strategy: "auto" (by the number of devices), "single_device", "ddp", "ddp_notebook",
            "fsdp", "model_parallel" or another name in `StrategyRegistry`; or a
            `Strategy`.
        devices: "auto"; a number, such as 2 or "2"; -1 for all; or indices, such as
            [0, 2] or "0,2". On a CPU a number of processes.
        num_nodes: Number of machines, with as many processes each.
        precision: "32-true"; "bf16-mixed" or "16-mixed" to compute in 16 bits where that
            does no harm; "bf16-true", "16-true" or "64-true" to hold everything in that.
        logger: True for a CSV logger, False for none, or one or several loggers.
        callbacks: One callback or a list of them.
        fast_dev_run: Run this many batches of everything (True: 1) and leave no files.
        max_epochs: Epochs to train; -1 for no limit. Without any limit, 1000.
        min_epochs: Ignore requests to stop before as many epochs.
        max_steps: Optimizer steps to train; -1 for no limit.
        min_steps: Ignore requests to stop before as many optimizer steps.
        limit_train_batches: Batches (int) or share (float) of each training epoch.
        limit_val_batches: The same for validation; 0 switches it off.
        limit_test_batches: The same for testing.
        limit_predict_batches: The same for predicting.
        overfit_batches: Train and validate on this many batches (int) or share (float),
            unshuffled.
        val_check_interval: Validate after this share of an epoch (float), so many batches
            (int), or such a time: "DD:HH:MM:SS", a `timedelta` or its arguments in a
            dictionary.
        check_val_every_n_epoch: Validate in every n-th epoch; None counts the batches of
            `val_check_interval` across epochs.
        num_sanity_val_steps: Validation batches to try before training; -1 for all.
        log_every_n_steps: Optimizer steps between two reports to the loggers.
        enable_checkpointing: Add a `ModelCheckpoint` if there is none.
        enable_progress_bar: Add a progress bar if there is none.
        enable_model_summary: Print a summary of the model.
        accumulate_grad_batches: Batches whose gradients make one optimizer step.
        gradient_clip_val: Largest norm, or absolute value, of gradients.
        gradient_clip_algorithm: "norm" (default) or "value".
        deterministic: Use deterministic algorithms only; "warn" where there is none.
        compile: Compile the steps with `torch.compile`: True, a mode such as
            "max-autotune", or its arguments by name. With manual optimization the module's
            parts are compiled instead, with a sharded model its blocks.
        matmul_precision: How products of 32-bit matrices are computed while a run lasts:
            "highest", "high" (TF32 on CUDA) or "medium"; None leaves torch's setting.
        benchmark: Let cuDNN search for the fastest algorithms.
        inference_mode: Use `torch.inference_mode` (else `no_grad`) outside of fits.
        detect_anomaly: Let autograd find where a NaN comes from; slow.
        profiler: "simple", "advanced", "pytorch" or a `Profiler`: what measures the run.
        max_time: Longest duration of training: "DD:HH:MM:SS", a `timedelta` or its
            arguments in a dictionary. Time before a resume counts.
        reload_dataloaders_every_n_epochs: Ask for the loaders anew so often; 0 for never.
        barebones: Train and nothing else: no logger, bar, checkpoint, summary or sanity
            check.
        enable_autolog_hparams: Send hyperparameters to the loggers at the start.
        sync_batchnorm: In fits of several processes, normalize over all their batches
            together; on GPUs.
        use_distributed_sampler: Split the data between processes, if there are several:
            training data evenly, evaluated data so that each sample comes once.
        plugins: A `Precision`, a `CheckpointIO`, a `ClusterEnvironment`, or a list of them,
            in place of what the other flags or the environment come to.
        default_root_dir: Where files go that nothing else places; the current folder.
        model_registry: Accepted for compatibility; nothing is up- or downloaded.

    An argument that is not passed is taken from the environment variable
    `PL_TRAINER_<NAME>`, if that is set. Most can be changed later by assigning to the
    attribute of the same name.

    Raises:
        MisconfigurationException: An argument is not accepted, or two contradict.

    Example:
        >>> from lightgen_runtime.demos.boring_classes import BoringModel
        >>> trainer = Trainer(max_epochs=1, logger=False, enable_checkpointing=False,
        ...                   enable_progress_bar=False, enable_model_summary=False)
        >>> trainer.fit(BoringModel())
        >>> trainer.current_epoch
        1
    """

    @refuse_unknown_arguments
    @with_defaults_from_environment
    def __init__(
        self,
        *,
        accelerator: str | Accelerator = "auto",
        strategy: str | Strategy = "auto",
        devices: int | str | list[int] = "auto",
        num_nodes: int = 1,
        precision: int | str | None = None,
        logger: bool | Logger | list[Logger] | None = None,
        callbacks: Callback | list[Callback] | None = None,
        fast_dev_run: bool | int = False,
        max_epochs: int | None = None,
        min_epochs: int | None = None,
        max_steps: int = -1,
        min_steps: int | None = None,
        limit_train_batches: int | float | None = None,
        limit_val_batches: int | float | None = None,
        limit_test_batches: int | float | None = None,
        limit_predict_batches: int | float | None = None,
        overfit_batches: int | float = 0.0,
        val_check_interval: (
            int | float | str | timedelta | dict[str, int] | None
        ) = None,
        check_val_every_n_epoch: int | None = 1,
        num_sanity_val_steps: int | None = None,
        log_every_n_steps: int | None = None,
        enable_checkpointing: bool | None = None,
        enable_progress_bar: bool | None = None,
        enable_model_summary: bool | None = None,
        accumulate_grad_batches: int = 1,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
        deterministic: bool | str | None = None,
        benchmark: bool | None = None,
        compile: bool | str | dict[str, Any] | None = None,
        matmul_precision: str | None = None,
        inference_mode: bool = True,
        detect_anomaly: bool = False,
        profiler: Profiler | str | None = None,
        max_time: str | timedelta | dict[str, int] | None = None,
        reload_dataloaders_every_n_epochs: int = 0,
        barebones: bool = False,
        enable_autolog_hparams: bool = True,
        sync_batchnorm: bool = False,
        use_distributed_sampler: bool = True,
        plugins: Plugin | list[Plugin] | None = None,
        default_root_dir: str | os.PathLike[str] | None = None,
        model_registry: str | None = None,
    ) -> None:
        flags = {name: value for name, value in locals().items() if name != "self"}
        self._parts = build_parts(flags)
        self.callbacks = build_callbacks(flags, self._parts)
        self.default_root_dir = location.normal(default_root_dir or Path.cwd())
        self.state = TrainerState()
        self.progress = Progress()
        self._ckpt_path: str | None = None
        self._assigned_ckpt_path: str | Path | None = None
        self._deterministic = deterministic
        self._benchmark = benchmark
        self.compile_options = compile_options(compile)
        self._matmul_precision = matmul_precision
        self._detect_anomaly = detect_anomaly
        self._unlimited = max_epochs is None and self.max_steps == -1
        if self.fast_dev_run:
            rank_zero_info(
                f"`Trainer(fast_dev_run={fast_dev_run})`: {int(fast_dev_run)} batch(es) of "
                "everything, for trial; no logs, no checkpoints"
            )
        self._should_stop = False
        self._received_sigterm = False
        self.interrupted_path: str | None = None
        self.job_mark = ""  # which of a job's fits this is
        self.place_in_job: tuple[str, int] = ("", 0)
        self.job_marks: list[str] = []  # what its checkpoints are found by
        self._run: Run | None = None
        self.fit_id = ""  # what a fit and all that go on from it have in common

    # ---- entry points ----

    def fit(
        self,
        model: LightningModule,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | Path | None = None,
        weights_only: bool | None = None,
    ) -> None:
        """Train `model`, validating on the way.

        Args:
            model: What to train.
            train_dataloaders: Iterable of training batches, or a datamodule.
            val_dataloaders: Iterable of validation batches, or a list of several.
            datamodule: Data, if not given as loaders.
            ckpt_path: Checkpoint to go on from: a path; "best", this trainer's best;
                "last", the newest that a checkpoint callback keeps under that name, from
                this or an earlier run (a fit without one begins anew); or "hpc", the one
                that the end of a cluster's job left. Without one, a fit that its job
                (of SLURM or torchrun) has started again goes on from its own newest.
            weights_only: Accepted for compatibility; loading never runs code.

        Raises:
            MisconfigurationException: Something needed is missing or contradictory.
            EmptyDataError: The training loader holds no batch.
            CheckpointNotFoundError: No file at `ckpt_path`.
            CheckpointMismatchError: The checkpoint does not fit the model or optimizer.
        """
        if self.min_epochs is None:
            # A least number of steps asks for a whole epoch, too.
            self.min_epochs = 0 if self.min_steps is None else 1
        given = {"train": train_dataloaders, "validate": val_dataloaders}
        self._should_stop = self._received_sigterm = False
        self.fit_id = secrets.token_hex(8)
        begin_fit(self)
        if self._unlimited and self.max_epochs == DEFAULT_MAX_EPOCHS:
            rank_zero_warn(
                "`Trainer` got neither max_epochs nor max_steps: training stops after "
                f"{DEFAULT_MAX_EPOCHS} epochs. Set max_epochs=-1 for no limit."
            )
        self._execute("fit", run_fit, model, given, datamodule, ckpt_path)

    def validate(
        self,
        model: LightningModule | None = None,
        dataloaders: Any = None,
        ckpt_path: str | Path | None = None,
        verbose: bool = True,
        datamodule: LightningDataModule | None = None,
        weights_only: bool | None = None,
    ) -> list[dict[str, float]]:
        """Evaluate on the validation data.

        Args:
            model: What to evaluate; by default the model of the last run, with its best
                checkpoint if there is one.
            dataloaders: Iterable of batches, or a list of several.
            ckpt_path: Checkpoint to load first: a path, "best", "last" or "hpc".
            verbose: Print the results.
            datamodule: Data, if not given as loaders.
            weights_only: Accepted for compatibility; loading never runs code.

        Returns:
            For each loader, the metrics logged over its epoch.
        """
        return self._evaluate(
            "validate", model, dataloaders, ckpt_path, verbose, datamodule
        )

    def test(
        self,
        model: LightningModule | None = None,
        dataloaders: Any = None,
        ckpt_path: str | Path | None = None,
        verbose: bool = True,
        datamodule: LightningDataModule | None = None,
        weights_only: bool | None = None,
    ) -> list[dict[str, float]]:
        """Evaluate on the test data; arguments and result as in `validate`."""
        return self._evaluate(
            "test", model, dataloaders, ckpt_path, verbose, datamodule
        )

    def predict(
        self,
        model: LightningModule | None = None,
        dataloaders: Any = None,
        datamodule: LightningDataModule | None = None,
        return_predictions: bool | str | None = None,
        ckpt_path: str | Path | None = None,
        weights_only: bool | None = None,
    ) -> list[Any] | None:
        """Predict every batch.

        Args:
            model: What predicts; by default as in `validate`.
            dataloaders: Iterable of batches, or a list of several.
            datamodule: Data, if not given as loaders.
            return_predictions: Whether to keep the predictions; None means yes. "all"
                returns those of all processes, in the data's order, in each of them; where
                the trainer has not split the data, those of the first process.
            ckpt_path: Checkpoint to load first: a path, "best", "last" or "hpc".
            weights_only: Accepted for compatibility; loading never runs code.

        Returns:
            What `predict_step` returned for each batch of this process; with several
            loaders a list of such lists; None if nothing was to be kept.

        Compat: Lightning's processes return their own only.
        """
        keep = which_predictions(return_predictions)
        story = partial(run_predict, return_predictions=keep)
        given = {"predict": dataloaders}
        predictions: list[Any] | None = self._execute(
            "predict", story, model, given, datamodule, ckpt_path
        )
        return predictions

    def _evaluate(
        self,
        fn: str,
        model: LightningModule | None,
        dataloaders: Any,
        ckpt_path: str | Path | None,
        verbose: bool,
        datamodule: LightningDataModule | None,
    ) -> list[dict[str, float]]:
        story = partial(evaluate_alone, stage=fn)
        results: list[dict[str, float]] = self._execute(
            fn, story, model, {fn: dataloaders}, datamodule, ckpt_path
        )
        if verbose and self.is_global_zero:
            self.print(format_results(fn, results))
        return results

    def save_checkpoint(
        self,
        filepath: str | Path,
        weights_only: bool | None = None,
        storage_options: Any = None,
    ) -> None:
        """Write the state of the run to a file, atomically.

        Collective: every process calls it; the first one writes.

        Args:
            filepath: Where to: a path, or an address such as `s3://bucket/x.ckpt`.
            weights_only: Leave out what only a resumed fit needs.
            storage_options: Passed on to a `CheckpointIO` of your own.

        Raises:
            RuntimeError: Nothing has run yet.
            CheckpointWriteError: The disk is full, there is no permission, or the like.
        """
        if self._run is None:
            raise RuntimeError(
                "`trainer.save_checkpoint` before any run: there is no model to save"
            )
        self.strategy.check_can_save(filepath)
        error: Exception | None = None
        with self.profiler.profile("save_checkpoint"):
            alone = bool(weights_only) or not has_optimizers(self)
            checkpoint = dump_checkpoint(self._run, alone)
            note_record(checkpoint, record_of(self, filepath, checkpoint))
            try:
                self.strategy.save_checkpoint(checkpoint, filepath, storage_options)
                if self.state.status != "running":
                    # No end of a run waits for it.
                    self.strategy.finish_saves(filepath)
            except CheckpointWriteError as caught:
                error = caught
            except OSError as caught:
                error = CheckpointWriteError(filepath, caught)
                error.__cause__ = caught
            except Exception as caught:
                error = caught
        self.strategy.raise_together(error)

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print from the first process, without disturbing the progress bar."""
        if not self.is_global_zero:
            return
        bar = self.progress_bar_callback
        if bar is not None and self._run is not None:
            bar.print(*args, **kwargs)
        else:
            print(*args, **kwargs)

    # ---- one run ----

    def _execute(
        self,
        fn: str,
        story: Callable[[Run], Any],
        model: LightningModule | None,
        given: dict[str, Any],
        datamodule: LightningDataModule | None,
        ckpt_path: str | Path | None,
        asked: tuple[str | Path | None, bool] | None = None,
    ) -> Any:
        """Run one stage between `prepare` and `teardown`, whatever happens in it.

        `asked` is set in a process started for this: which checkpoint is asked for, and
        whether the caller has passed a model.
        """
        asked = asked or (self._given_or_assigned(ckpt_path, fn), model is not None)
        choose = partial(choose_checkpoint, self, *asked, fn)
        given, datamodule = sort_data(fn, given, datamodule)
        run = self._new_run(fn, model, given, datamodule)
        stage = RunningStage.TRAINING if fn == "fit" else RunningStage(fn)
        self.state = TrainerState(TrainerStatus.RUNNING, TrainerFn(fn), stage)
        self._ckpt_path = None
        if is_launched(self):
            return launch(self, run, {"story": story, "given": given, "asked": asked})
        error: BaseException | None = None
        try:
            set_torch_flags(self._deterministic, self._benchmark)
            with (
                torch.autograd.set_detect_anomaly(self._detect_anomaly),
                computing_products(self._matmul_precision),
            ):
                prepare(run, fn, choose)
                run.module.zero_grad()
                with stopping_when_asked(self, run):
                    result = story(run)
            conclude(run, fn)
            if fn == "fit":
                forget_interrupted(self, trained=run.resumed is None)
            self.state.status = TrainerStatus.FINISHED
            return result
        except TunerExit:
            run.between_hooks()
            self.state.status = TrainerStatus.FINISHED
            return None
        except BaseException as caught:
            error = self.strategy.cause_of(caught)
            self.state.status = TrainerStatus.INTERRUPTED
            run.between_hooks()
            tell_of_exception(run, error)
            if error is caught:
                raise
            raise error from None
        finally:
            attach(run.module, None, run)
            try:
                teardown(run, fn, error)
            finally:
                self.state.stage = None
            requeue_if_due(self, error)
            # The error leads to this frame. In a circle, the workers of a loader would be
            # ended by the garbage collector, which takes seconds for each.
            del error

    def _new_run(
        self,
        fn: str,
        model: LightningModule | None,
        given: dict[str, Any],
        datamodule: LightningDataModule | None,
    ) -> Run:
        if model is None and self._run is not None:
            model = self._run.module
            if not any(loaders is not None for loaders in given.values()):
                datamodule = datamodule or self._run.datamodule
        model = checked_model(fn, model, given)
        source = DataSource(self._parts, model, datamodule, given)
        run = Run(
            self, self._parts, model, datamodule, self.callbacks, source, self.progress
        )
        model.trainer = self
        self.strategy.lightning_module = model
        attach(model, run.context, run)
        if datamodule is not None:
            datamodule.trainer = self
        if self._run is not None and self._run.module is model and fn != "fit":
            run.go_on_from(self._run)
        self._run = run
        return run

    def init_module(
        self, empty_init: bool | None = None
    ) -> AbstractContextManager[None]:
        """Make modules on the run's device and in its precision's type, in a `with` block.

        Args:
            empty_init: Leave parameters uninitialized, because a checkpoint fills them.
        """
        device = self.strategy.root_device
        return tensors_made_for(device, self.precision_plugin, bool(empty_init))

    def trial(self) -> AbstractContextManager[Trial]:
        """Try the running stage and be as before afterwards; for tuning callbacks.

        Raises:
            RuntimeError: Nothing is running.
        """
        if self._run is None or self.state.fn is None:
            raise RuntimeError("`trainer.trial` outside of a run: nothing to try")
        return trial(self, self._run, self.state.fn)

    def note_ckpt_path(self, path: str | None) -> None:
        """Note which checkpoint the run loads; for the run itself, not for users."""
        self._ckpt_path = path

    def enter_stage(self, stage: str) -> None:
        """Note which stage the loops are in; for the loops, not for users."""
        self.state.stage = RunningStage(stage)

    @property
    def should_stop(self) -> bool:
        """Whether somebody asked to stop; assign True to ask."""
        return self._should_stop

    @should_stop.setter
    def should_stop(self, stop: bool) -> None:
        self._should_stop = stop
        if self._run is not None:
            self._run.note_stop(stop)

    @property
    def received_sigterm(self) -> bool:
        """Whether the process was asked to terminate while the last fit ran."""
        return self._received_sigterm

    def note_sigterm(self) -> None:
        """Note that the process was asked to terminate; for the trainer's own parts."""
        self._received_sigterm = True

    @property
    def ckpt_path(self) -> str | None:
        """The checkpoint that the current or last run loaded.

        One that is assigned is loaded by every following run that is not given another,
        until None is assigned.
        """
        return self._ckpt_path

    @ckpt_path.setter
    def ckpt_path(self, path: str | Path | None) -> None:
        self._ckpt_path = None if path is None else str(path)
        self._assigned_ckpt_path = path or None

    def _given_or_assigned(
        self, given: str | Path | None, fn: str
    ) -> str | Path | None:
        assigned = self._assigned_ckpt_path
        if given and assigned:
            rank_zero_warn(
                f"`trainer.{fn}(ckpt_path={str(given)!r})` takes the place of "
                f"{str(assigned)!r}, which was assigned to `trainer.ckpt_path`"
            )
            self._assigned_ckpt_path = None
        return given or assigned
