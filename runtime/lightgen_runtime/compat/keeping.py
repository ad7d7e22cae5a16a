"""What checkpoints, resuming, callbacks and the command line do differently."""

from lightgen_runtime.compat.conditions import (
    AVERAGING,
    BY_HAND,
    CLI,
    ENDING_AT_A_STEP,
    EVALUATED,
    RESUMED,
    STATE_OF_CALLBACKS,
)
from lightgen_runtime.compat.rules import Behaviour

RESUMING = (
    Behaviour(
        ("Trainer.fit(ckpt_path)",),
        "a resumed fit goes on as if nothing had stopped it: with the next batch of the "
        "epoch or of an interrupted validation, in the same shuffled order, with the "
        "metrics so far and no second sanity check; what was logged after the checkpoint "
        "is dropped; a learning rate, optimizer or scheduler that the code has changed "
        "since is taken, and told",
        "to begin anew with its weights, use `load_from_checkpoint`",
        rows=(
            "test_resume_inside_an_epoch",
            "test_order_of_a_shuffled_loader_after_a_resume",
            "test_metrics_after_a_resume",
            "test_sanity_check_after_a_resume",
            "test_resume_with_other_optimizers",
            "test_resume_with_another_rate",
            "test_resume_inside_a_validation",
            "test_rows_behind_the_checkpoint_of_a_resumed_fit",
        ),
    ),
    Behaviour(
        ("Trainer.fit(ckpt_path)",),
        "if the fit is longer than the one before, its schedule follows the new length; "
        "with Lightning it keeps the old one",
        rows=("test_schedule_of_a_prolonged_run",),
        only_with=(ENDING_AT_A_STEP,),
    ),
    Behaviour(
        (
            "*.save_checkpoint() in on_train_epoch_end",
            "callbacks.ModelCheckpoint(save_on_train_epoch_end=True)",
        ),
        "a fit resumed from a file of `on_train_epoch_end` first does what its epoch has "
        "still to do: log its metrics, step its schedulers",
        rows=("test_resume_from_the_end_hook_of_an_epoch",),
        only_with=(RESUMED,),
    ),
    Behaviour(
        ("callbacks.BackboneFinetuning", "callbacks.BaseFinetuning"),
        "what had been unfrozen stays unfrozen after a resume",
        rows=("test_unfrozen_backbone_after_a_resume",),
        only_with=(RESUMED,),
    ),
    Behaviour(
        ("callbacks.ModelPruning",),
        "a resumed fit goes on with the masks of its file; with Lightning, what was pruned "
        "trains again",
        rows=("test_masks_after_a_resume",),
        only_with=(RESUMED,),
    ),
    Behaviour(
        ("callbacks.LearningRateFinder", "callbacks.BatchSizeFinder"),
        "a resumed fit goes on where its file was written, with the rate or size that was "
        "found then, and searches nothing again; with Lightning, the finder makes it begin "
        "anew at epoch 0",
        rows=("test_resume_with_a_finder",),
        only_with=(RESUMED,),
    ),
    Behaviour(
        ("callbacks.ModelCheckpoint(monitor)",),
        "files from behind the point where a fit is resumed are ranked with the others and "
        "make room for better ones; with Lightning they stay for ever",
        rows=("test_files_from_behind_the_point_of_resuming",),
        only_with=(RESUMED,),
    ),
    Behaviour(
        tuple(name.replace(")", "='last')") for name in EVALUATED),
        "a last checkpoint that is not there is a `CheckpointNotFoundError`; Lightning "
        "warns and evaluates the weights at hand",
        rows=("test_last_checkpoint_that_is_not_there",),
    ),
)
FILES = (
    Behaviour(
        (
            "*.load_from_checkpoint(weights_only)",
            "Trainer.fit(weights_only)",
            "Trainer.validate(weights_only)",
            "Trainer.test(weights_only)",
            "Trainer.predict(weights_only)",
        ),
        "code inside a file never runs; the flag is accepted and ignored",
        rows=("test_code_in_a_file",),
    ),
    Behaviour(
        (
            "LightningModule.load_from_checkpoint",
            "LightningDataModule.load_from_checkpoint",
        ),
        "a class that a command line's checkpoint names is neither imported nor built, "
        "unless it is the class that loads",
        "allow others with `torch.serialization.add_safe_globals`",
        rows=(
            "test_class_that_a_checkpoint_names",
            "test_class_of_a_checkpoint_that_nobody_imported",
        ),
        only_with=((CLI,),),
    ),
    Behaviour(
        (CLI,),
        "a checkpoint puts no other class in the place of the config's model",
        "allow it with `torch.serialization.add_safe_globals`",
        rows=("test_class_that_a_checkpoint_puts_in_place_of_the_chosen_one",),
    ),
    Behaviour(
        (
            "LightningModule.on_save_checkpoint",
            "Callback.on_save_checkpoint",
        ),
        "also called once before a fit that saves, with a checkpoint that is not written; "
        "what it gives has to be data",
        rows=("test_hook_before_a_file_is_written", "test_state_that_no_loader_reads"),
    ),
    Behaviour(
        ("hyperparameter of *",),
        "a hyperparameter such as a path, an enumeration or a dataclass is stored as a "
        "string, a number or a dictionary, and comes back as that; Lightning refuses its "
        "own file",
        "turn it back in `__init__`",
        rows=("test_hyperparameters_that_are_not_plain",),
    ),
    Behaviour(
        ("load_from_checkpoint(* is no argument)",),
        "what `__init__` does not take is an error, and not ignored",
        "leave it out",
        rows=("test_override_that_is_no_argument",),
    ),
    Behaviour(
        ("*AsyncCheckpointIO",),
        "a file that lost its place is removed after the new one is written, not before",
        "leave room for one file more",
        rows=("test_removal_while_a_thread_writes_checkpoints",),
    ),
    Behaviour(
        ("*AsyncCheckpointIO",),
        "saving waits while another checkpoint is being written, so that there is one copy "
        "at the most; a disk that is full is a warning, another error ends the run after "
        "the running batch",
        rows=(
            "test_saving_while_a_thread_writes",
            "test_disk_that_is_full_when_a_thread_writes",
            "test_write_that_fails_in_a_thread",
        ),
    ),
    Behaviour(
        EVALUATED,
        "callbacks keep their state and do not get the file's",
        "give the state back with `load_state_dict` if it is needed",
        rows=("test_state_of_callbacks_after_evaluating_a_checkpoint",),
        only_with=(STATE_OF_CALLBACKS,),
    ),
    Behaviour(
        ("LightningModule.to_onnx",),
        "a module in training mode is exported in evaluation mode, and gets its mode back",
        rows=("test_mode_of_a_module_that_is_exported",),
    ),
)
SAVING = (
    Behaviour(
        (
            "callbacks.ModelCheckpoint(*every_n_train_steps*monitor*)",
            "callbacks.ModelCheckpoint(*monitor*train_time_interval*)",
        ),
        "a file that is due before its metric is there is saved at the next validation; "
        "a metric that never comes is an error",
        rows=("test_step_checkpoint_before_its_metric",),
    ),
    Behaviour(
        ("callbacks.ModelCheckpoint(every_n_train_steps)",),
        "in manual optimization, a number of steps that one batch passes over is saved "
        "at as well",
        rows=("test_steps_between_checkpoints_by_hand",),
        only_with=(BY_HAND,),
    ),
    Behaviour(
        ("Trainer(check_val_every_n_epoch)",),
        "where there is nothing to validate with, the default `ModelCheckpoint` saves at "
        "epoch ends; with Lightning it never saves",
        rows=("test_checkpoints_of_a_fit_that_never_validates",),
        not_with=("LightningModule.validation_step",),
    ),
    Behaviour(
        ("callbacks.ModelCheckpoint(save_last)",),
        "`last.ckpt` is the newest state whenever a save is due, also where its score is "
        "not kept",
        rows=(
            "test_last_checkpoint_is_the_newest",
            "test_last_checkpoint_of_an_epoch_whose_score_is_not_kept",
        ),
    ),
    Behaviour(
        ("callbacks.ModelCheckpoint(save_last)",),
        "`fast_dev_run` writes no `last.ckpt`",
        rows=("test_last_checkpoint_of_a_trial_run",),
        only_with=(("Trainer(fast_dev_run)",),),
    ),
    Behaviour(
        ("callbacks.ModelCheckpoint(save_on_exception)",),
        "saves nothing after `NonFiniteLossError`, whose weights are broken",
        rows=("test_save_on_exception_after_a_broken_loss",),
    ),
    Behaviour(
        ("callbacks.ModelCheckpoint(save_weights_only)",),
        "beside `WeightAveraging`, files of weights alone hold the average that was "
        "validated; with Lightning, the weights that nobody validated",
        rows=("test_averaged_weights_in_a_file_of_weights_alone",),
        only_with=(AVERAGING,),
    ),
)
OTHERS = (
    Behaviour(
        AVERAGING,
        "evaluating a checkpoint after a fit leaves the evaluated weights in the module",
        rows=("test_weights_after_evaluating_an_averaged_checkpoint",),
        only_with=(EVALUATED,),
    ),
    Behaviour(
        ("callbacks.OnExceptionCheckpoint",),
        "only a fit writes or removes its file; evaluating does not, and after a run that "
        "ended well a new `fit` begins anew; one that fails before its first batch leaves "
        "the file it came from",
        rows=(
            "test_exception_before_the_first_batch",
            "test_evaluating_the_file_of_a_failed_fit",
            "test_fit_after_no_exception",
        ),
    ),
    Behaviour(
        ("callbacks.TQDMProgressBar", "callbacks.RichProgressBar"),
        "counts epochs from 1; `current_epoch` still counts from 0",
        rows=("test_epochs_in_the_progress_bar",),
    ),
    Behaviour(
        ("callbacks.TQDMProgressBar",),
        "writes to stderr, not to stdout",
        rows=("test_stream_of_the_tqdm_bar",),
    ),
    Behaviour(
        ("tuner.tuning.Tuner.scale_batch_size", "callbacks.BatchSizeFinder"),
        "returns only sizes that were tried and fit, none beyond `max_val`",
        rows=("test_scaling_returns_only_sizes_that_fit",),
    ),
    Behaviour(
        ("cli.LightningCLI",),
        "abbreviated options are refused",
        "write them out where the program is called",
        rows=("test_abbreviated_options",),
    ),
    Behaviour(
        ("strategies.Strategy", "strategies.strategy.Strategy"),
        "a subclass implements the abstract methods of here",
        "see `lightgen_runtime/strategies/base.py`",
    ),
    Behaviour(
        (
            "utilities.LightningEnum",
            "trainer.states.RunningStage",
            "trainer.states.TrainerFn",
            "trainer.states.TrainerStatus",
        ),
        "`str` and f-strings of a member give its value; it equals its value in the same "
        "case only",
    ),
)
