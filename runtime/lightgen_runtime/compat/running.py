"""What a run does differently: training, metrics, devices, precision, its end."""

from lightgen_runtime.compat.conditions import (
    ACCUMULATION,
    BY_HAND,
    DOUBLE,
    EVALUATED,
    RESUMED,
    SCALER,
    SCHEDULED,
    SEVERAL_DEVICES,
    STREAM,
    SYNCED,
)
from lightgen_runtime.compat.rules import Behaviour

TRAINING = (
    Behaviour(
        ACCUMULATION,
        "the gradient of an epoch's last, shorter window is divided by its true length",
        rows=("test_short_accumulation_window",),
    ),
    Behaviour(
        (
            "utilities.types.LRSchedulerConfigType",
            "'frequency': [!1]*",
            "'frequency': 1?*",
        ),
        '"frequency" counts optimizer steps, or epochs, over the whole fit, not the '
        "batches of an epoch",
        "divide a number of batches by `accumulate_grad_batches`",
        rows=("test_scheduler_frequency",),
    ),
    Behaviour(
        ("Trainer.estimated_stepping_batches",),
        "it follows the schedule of `GradientAccumulationScheduler`",
        rows=("test_estimated_steps_of_scheduled_accumulation",),
        only_with=(SCHEDULED,),
    ),
    Behaviour(
        ("Trainer.estimated_stepping_batches",),
        "it is infinity, not -1, for an iterable loader without a limit",
        rows=("test_estimated_steps_of_an_iterable_loader",),
        only_with=(STREAM,),
    ),
    Behaviour(
        (
            "Trainer.num_training_batches",
            "Trainer.num_val_batches",
            "Trainer.num_sanity_val_batches",
            "Trainer.num_test_batches",
            "Trainer.num_predict_batches",
        ),
        "after another entry point, such as a `test` after a fit, it is that one's",
        "read it before",
        rows=("test_numbers_of_batches_after_another_entry_point",),
        only_with=(("Trainer.validate", "Trainer.test", "Trainer.predict"),),
    ),
    Behaviour(
        ("Trainer.num_val_batches",),
        "it is known before the first validation, not empty",
        rows=("test_numbers_of_batches_before_the_first_validation",),
    ),
    Behaviour(
        ("callbacks.StochasticWeightAveraging",),
        "the epoch for the statistics of batch norm ends without an optimizer step: the "
        "result is the average",
        rows=("test_step_after_the_averaged_weights",),
    ),
    Behaviour(
        ("callbacks.EarlyStopping(log_rank_zero_only)",),
        "without effect: of several processes, which stop for the same reason, rank 0 alone "
        "tells it",
        rows=("test_processes_that_tell_why_training_stops",),
    ),
    Behaviour(
        ("callbacks.ModelPruning",),
        "on a CPU, too, weights are set back to how they began after each pruning; with "
        "Lightning, after the first alone",
        rows=("test_lottery_tickets_of_a_cpu",),
    ),
    Behaviour(
        ("Trainer(limit_train_batches)",),
        "where an iterable loader ends before this limit, the epoch ends with a "
        "validation; with Lightning there is none",
        rows=("test_limit_beyond_the_end_of_an_iterable_loader",),
        only_with=(STREAM,),
    ),
    Behaviour(
        ("seed_everything(workers)",),
        "the workers of loaders draw other random numbers from the same seed, as distinct "
        "from worker to worker and process to process",
        rows=("test_random_numbers_in_workers",),
        only_with=(("DataLoader(num_workers)",),),
    ),
    Behaviour(
        ("Trainer(reload_dataloaders_every_n_epochs)",),
        "a reloaded loader is opened once an epoch, not three times",
        rows=("test_opening_of_a_reloaded_loader",),
    ),
    Behaviour(
        (
            "LightningModule in another",
            "self.*.training_step() in *",
            "self.*.validation_step() in *",
            "self.*.test_step() in *",
        ),
        "`self.log` of a module inside another logs into the running hook; with Lightning "
        "it is an error, or nothing if the module is in a list",
        rows=("test_log_of_a_nested_module",),
    ),
    Behaviour(
        ("dataloader_iter in *_step",),
        "a step that takes `dataloader_iter` is refused",
        "take the batch",
        rows=("test_step_that_takes_the_iterator",),
    ),
)
METRICS = (
    Behaviour(
        ("LightningModule.log(value)", "LightningModule.log_dict(dictionary)"),
        "means keep double precision, which shows where a model computes in it",
        rows=("test_precision_of_logged_numbers",),
        only_with=(DOUBLE,),
    ),
    Behaviour(
        tuple(
            f"*.{log}() in on_{hook}"
            for log in ("log", "log_dict")
            for hook in (
                *("before_backward", "after_backward"),
                *("before_optimizer_step", "before_zero_grad"),
            )
        ),
        "if the hook runs twice in an epoch's first batch, as it may in manual "
        "optimization, all values count, also the earlier ones",
        rows=("test_values_of_a_hook_that_runs_twice_in_a_batch",),
        only_with=(BY_HAND,),
    ),
    Behaviour(
        (
            "*.log(on_step=True) in validation_step",
            "*.log_dict(on_step=True) in validation_step",
        ),
        "the axis of evaluated batches goes on after a resume and does not start again "
        "at 0",
        rows=("test_axis_of_evaluated_batches_after_a_resume",),
        only_with=(RESUMED,),
    ),
)
DEVICES = (
    Behaviour(
        SEVERAL_DEVICES,
        "several devices evaluate every sample exactly once, without padding, and epoch "
        "values are reduced over all of them, weighted by samples, also without "
        "`sync_dist`",
        rows=(
            "test_every_sample_is_evaluated_once",
            "test_epoch_values_without_sync_dist",
        ),
    ),
    Behaviour(
        (
            "Trainer.callback_metrics",
            "Trainer.logged_metrics",
            "Trainer.progress_bar_metrics",
        ),
        "what a step logs with `sync_dist=True` is each process's own between two "
        "reports of `log_every_n_steps`",
        "read it at the epoch's end",
        rows=("test_step_values_between_two_reports",),
        only_with=(SEVERAL_DEVICES, SYNCED),
    ),
    Behaviour(
        (
            "LightningModule.train_dataloader",
            "LightningDataModule.train_dataloader",
            "Trainer.fit(train_dataloaders)",
        ),
        "several devices read training samples in the loader's order; with Lightning "
        "they are shuffled all the same",
        "pass `shuffle=True` to the loader",
        rows=("test_order_of_training_samples_that_are_not_shuffled",),
        only_with=(SEVERAL_DEVICES,),
        not_with=("DataLoader(shuffle)",),
    ),
    Behaviour(
        ("LightningModule.all_gather",),
        "while evaluating it refuses tensors whose shapes differ between processes; "
        "with Lightning samples are padded until they do not",
        "use `self.gather_in_order(values)` for what was collected batch by batch",
        rows=("test_gathering_from_an_uneven_evaluation",),
        only_with=(SEVERAL_DEVICES,),
    ),
    Behaviour(
        ("Trainer.model",),
        "several devices have the module itself there, not `DistributedDataParallel` "
        "around it",
        "leave `.module` out",
        rows=("test_trainer_model_in_several_processes",),
        only_with=(SEVERAL_DEVICES,),
    ),
    Behaviour(
        ("Trainer.predict", "callbacks.BasePredictionWriter"),
        "several devices predict whole batches in turn, not samples",
        '`predict(..., return_predictions="all")` puts them together',
        rows=("test_predictions_are_dealt_out_by_batches",),
        only_with=(SEVERAL_DEVICES,),
    ),
    Behaviour(
        ("Trainer.fit(ckpt_path)",),
        "a fit that goes on inside an epoch with another number of processes reads each "
        "remaining sample of it once",
        rows=("test_resume_inside_an_epoch_by_other_processes",),
        only_with=(SEVERAL_DEVICES,),
    ),
    Behaviour(
        ("Trainer(strategy='fsdp*')", "strategies.FSDPStrategy"),
        "the model is sharded by torch's `fully_shard`, not wrapped in "
        "`FullyShardedDataParallel`",
        "layers that you wrap by hand: apply `fully_shard` in `configure_model`",
        rows=("test_fsdp_is_fully_shard",),
    ),
    Behaviour(
        ("strategies.ModelParallelStrategy",),
        "a checkpoint is one file, which loads anywhere",
        "for one part from each process, pass `save_distributed_checkpoint=True`",
        rows=("test_checkpoint_of_a_mesh_is_one_file",),
    ),
    Behaviour(
        ("Trainer(sync_batchnorm)",),
        "it is refused on CPUs, before the first batch",
        "leave it out there",
        only_with=(SEVERAL_DEVICES,),
    ),
)
PRECISION = (
    Behaviour(
        ("'interval': 'step'",),
        "in `16-mixed` the scheduler waits where the scaler skipped the step",
        rows=("test_scheduler_after_a_step_that_the_scaler_skipped",),
        only_with=(SCALER,),
    ),
    Behaviour(
        DOUBLE,
        "weights of a `64-true` checkpoint are exact when resumed or evaluated; with "
        "Lightning they pass through single precision",
        rows=("test_weights_in_64_bits_after_a_resume",),
        only_with=((*RESUMED, *EVALUATED),),
    ),
    Behaviour(
        ("LightningModule.clip_gradients",),
        "by hand in `16-mixed` it clips the true gradients, not the scaled ones",
        "give it the norm that is meant, not one for scaled gradients",
        rows=("test_clipping_by_hand_with_a_scaler",),
        only_with=(SCALER, BY_HAND),
    ),
    Behaviour(
        ("LightningModule.manual_backward",),
        "where two losses come before two steps in `16-mixed`, the second step's "
        "gradients are divided by the scale they were multiplied with",
        rows=("test_two_losses_of_one_scale_by_hand",),
        only_with=(SCALER,),
    ),
    Behaviour(
        ("return None in training_step",),
        "in `16-mixed`, the gradients of an accumulation window whose last batch has no "
        "loss are stepped on; with Lightning they are dropped",
        rows=("test_scaled_window_whose_last_batch_has_no_loss",),
        only_with=(SCALER, ACCUMULATION),
    ),
    Behaviour(
        ("closure() in optimizer_step", "optimizer_closure() in optimizer_step"),
        "in `16-mixed`, `optimizer.step()` steps after a closure that was called by hand; "
        "with Lightning it never does",
        rows=("test_scaled_step_after_calling_the_closure",),
        only_with=(SCALER,),
    ),
)
ENDS = (
    Behaviour(
        (
            "LightningModule.teardown",
            "LightningDataModule.teardown",
            "Callback.teardown",
        ),
        "called after an error too",
        "do not count on what a finished run leaves",
        rows=("test_teardown_after_an_error",),
    ),
    Behaviour(
        ("Callback.on_exception", "LightningDataModule.on_exception"),
        "an error in it becomes a note on the first error, and the clean-up goes on",
        rows=("test_error_in_clean_up",),
    ),
    Behaviour(
        ("except KeyboardInterrupt", "except SystemExit"),
        "Ctrl-C reaches the caller as `KeyboardInterrupt`; Lightning exits with code 1",
        "catch `KeyboardInterrupt`",
        rows=("test_interrupt_by_the_keyboard",),
    ),
    Behaviour(
        (
            "except SystemExit",
            "utilities.exceptions.SIGTERMException",
            "Trainer.received_sigterm",
        ),
        "SIGTERM ends a fit with exit code 143, not 0",
        rows=("test_exit_code_of_a_terminated_fit",),
    ),
)
MISTAKES = (
    Behaviour(
        (
            "Trainer.fit(*datamodule*train_dataloaders*)",
            "Trainer.*(*dataloaders*datamodule*)",
        ),
        "two datamodules are refused; with Lightning one is ignored",
        "pass one of them",
        rows=("test_datamodule_given_twice",),
    ),
    Behaviour(
        ("hook * as *",),
        "nothing calls a method of the second name, here and in Lightning; here the run "
        "warns",
        "rename it",
        rows=("test_method_that_is_no_hook",),
    ),
    Behaviour(
        (
            "except ValueError",
            "except RuntimeError",
            "except TypeError",
            "except NotImplementedError",
        ),
        "mistakes in flags, seeds, precisions, hooks and monitored metrics are a "
        "`MisconfigurationException`",
        "catch that too",
        rows=(
            "test_bad_seed",
            "test_early_stopping_without_its_metric",
            "test_error_for_a_precision_that_cannot_be",
            "test_module_that_has_not_been_compiled",
            "test_hook_with_wrong_arguments",
            "test_epoch_end_hook_of_version_1",
        ),
    ),
)
