"""Code that a row of docs/compat.md can concern."""

from __future__ import annotations

import ast
from pathlib import Path

from compat_counterexamples import (
    MODULE,
    NOT_CONCERNED,
    RESUMED,
    SCALED,
    TRAINED_BY_HAND,
)

from lightgen_runtime.compat.check import follow_all
from lightgen_runtime.compat.codebase import CodeBase
from lightgen_runtime.compat.usage import Usage

IMPORTS = """\
import lightning as L
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
"""
_STREAM = "class Stream(IterableDataset): ...\n"
_CALLBACK = "class Own(Callback):\n"
_GIVEN_STATE = _CALLBACK + "    def load_state_dict(self, state): ...\n"
_ACCUMULATION = (
    "from lightning.pytorch.callbacks import GradientAccumulationScheduler\n"
)

# A row, and code that it can concern.
CONCERNED = [
    (
        "test_numbers_of_batches_before_the_first_validation",
        "print(trainer.num_val_batches)",
    ),
    ("test_short_accumulation_window", "Trainer(accumulate_grad_batches=4)"),
    ("test_short_accumulation_window", _ACCUMULATION),
    (
        "test_short_accumulation_window",
        "flags = {'accumulate_grad_batches': 4}\nTrainer(**flags)",
    ),
    (
        "test_short_accumulation_window",
        "def make(**flags):\n    return L.Trainer(**flags)\n"
        "make(accumulate_grad_batches=4)",
    ),
    (
        "test_random_numbers_in_workers",
        "L.seed_everything(1, workers=True)\nDataLoader(data, num_workers=2)",
    ),
    ("test_scheduler_frequency", "x = {'scheduler': s, 'frequency': 2}"),
    ("test_scheduler_frequency", "x = dict(scheduler=s, frequency=every)"),
    ("test_scheduler_frequency", "x = dict(interval='step', frequency=10)"),
    (
        "test_scheduler_frequency",
        MODULE + "    def configure_optimizers(self):\n"
        "        config = {}\n        config['frequency'] = 5",
    ),
    (
        "test_estimated_steps_of_scheduled_accumulation",
        _ACCUMULATION + "trainer.estimated_stepping_batches",
    ),
    (
        "test_estimated_steps_of_an_iterable_loader",
        _STREAM + "trainer.estimated_stepping_batches",
    ),
    (
        "test_numbers_of_batches_after_another_entry_point",
        "trainer.test(model)\nprint(trainer.num_val_batches)",
    ),
    (
        "test_processes_that_tell_why_training_stops",
        "from lightning.pytorch.callbacks import EarlyStopping\n"
        "EarlyStopping('val_loss', log_rank_zero_only=True)",
    ),
    (
        "test_lottery_tickets_of_a_cpu",
        "from lightning.pytorch.callbacks import ModelPruning",
    ),
    (
        "test_step_after_the_averaged_weights",
        "from lightning.pytorch.callbacks import StochasticWeightAveraging",
    ),
    (
        "test_limit_beyond_the_end_of_an_iterable_loader",
        _STREAM + "Trainer(limit_train_batches=100)",
    ),
    (
        "test_opening_of_a_reloaded_loader",
        "Trainer(reload_dataloaders_every_n_epochs=1)",
    ),
    (
        "test_log_of_a_nested_module",
        "class Part(LightningModule):\n"
        "    def note(self):\n        self.log('x', 1)\n"
        "class Whole(LightningModule):\n"
        "    def __init__(self):\n        self.parts = [Part()]",
    ),
    *(
        (
            "test_log_of_a_nested_module",
            MODULE + f"    def {step}(self, batch, batch_idx):\n"
            f"        return self.parts[0].{step}(batch, batch_idx)",
        )
        for step in ("training_step", "validation_step", "test_step")
    ),
    (
        "test_step_that_takes_the_iterator",
        MODULE + "    def training_step(self, dataloader_iter): ...",
    ),
    (
        "test_precision_of_logged_numbers",
        MODULE + "    def training_step(self, batch):\n        self.log('x', 1)\n"
        "Trainer(precision='64-true')",
    ),
    *(
        (
            "test_values_of_a_hook_that_runs_twice_in_a_batch",
            TRAINED_BY_HAND + f"    def {hook}(self, *_):\n        self.{log}",
        )
        for log in ("log('norm', 1)", "log_dict({'norm': 1})")
        for hook in (
            *("on_before_backward", "on_after_backward"),
            *("on_before_optimizer_step", "on_before_zero_grad"),
        )
    ),
    *(
        (
            "test_axis_of_evaluated_batches_after_a_resume",
            MODULE + "    def validation_step(self, batch, batch_idx):\n"
            f"        self.{log}, on_step=True)\n" + RESUMED,
        )
        for log in ("log('x', 1", "log_dict({'x': 1}")
    ),
    *(
        (row, f"Trainer({flags})")
        for row in (
            "test_every_sample_is_evaluated_once",
            "test_epoch_values_without_sync_dist",
        )
        for flags in (
            *("devices=2", "devices=16", "devices=-1", "devices='-1'", "devices='4'"),
            *("devices='0,1'", "devices=[0, 1]", "devices=args.devices", "num_nodes=2"),
            "strategy='ddp_find_unused_parameters_true'",
        )
    ),
    (
        "test_every_sample_is_evaluated_once",
        "from lightning.pytorch.strategies import DDPStrategy",
    ),
    *(
        ("test_fsdp_is_fully_shard", code)
        for code in (
            "Trainer(strategy='fsdp')",
            "from lightning.pytorch.strategies import FSDPStrategy",
        )
    ),
    (
        "test_checkpoint_of_a_mesh_is_one_file",
        "from lightning.pytorch.strategies import ModelParallelStrategy",
    ),
    (
        "test_predictions_are_dealt_out_by_batches",
        "trainer = Trainer(devices=2)\ntrainer.predict(model)",
    ),
    (
        "test_resume_inside_an_epoch_by_other_processes",
        "Trainer(devices=2).fit(model, ckpt_path=path)",
    ),
    (
        "test_step_values_between_two_reports",
        "trainer = Trainer(devices=2)\nmodule = LightningModule()\n"
        "module.log('loss', 1.0, sync_dist=True)\nprint(trainer.callback_metrics)",
    ),
    (
        "test_order_of_training_samples_that_are_not_shuffled",
        "Trainer(devices=2).fit(model, DataLoader(data))",
    ),
    (
        "test_gathering_from_an_uneven_evaluation",
        "Trainer(devices=2)\n" + MODULE + "    def on_validation_epoch_end(self):\n"
        "        self.all_gather(self.outputs)",
    ),
    (
        "test_trainer_model_in_several_processes",
        "trainer = Trainer(strategy='ddp')\nprint(trainer.model.module)",
    ),
    (
        "test_scheduler_after_a_step_that_the_scaler_skipped",
        SCALED + "x = {'scheduler': s, 'interval': 'step'}",
    ),
    *(
        (
            "test_weights_in_64_bits_after_a_resume",
            f"trainer = Trainer(precision={precision})\n"
            "trainer.test(model, ckpt_path='best')",
        )
        for precision in ("64", "'64'", "'64-true'")
    ),
    *(
        (
            "test_clipping_by_hand_with_a_scaler",
            TRAINED_BY_HAND + f"Trainer(precision={precision})",
        )
        for precision in ("16", "'16'", "'16-mixed'", "args.precision")
    ),
    ("test_two_losses_of_one_scale_by_hand", TRAINED_BY_HAND + SCALED),
    (
        "test_two_losses_of_one_scale_by_hand",
        "from lightning.pytorch.cli import LightningCLI\n" + TRAINED_BY_HAND,
    ),
    (
        "test_scaled_window_whose_last_batch_has_no_loss",
        MODULE + "    def training_step(self, batch, batch_idx):\n"
        "        if batch is None:\n            return\n"
        "        return self(batch)\n"
        "Trainer(precision=16, accumulate_grad_batches=2)",
    ),
    *(
        (
            "test_scaled_step_after_calling_the_closure",
            MODULE + f"    def optimizer_step(self, epoch, i, optimizer, {closure}):\n"
            f"        {closure}()\n        optimizer.step()\n" + SCALED,
        )
        for closure in ("closure", "optimizer_closure")
    ),
    ("test_resume_inside_an_epoch", RESUMED),
    ("test_resume_inside_an_epoch", "own.fit(model, ckpt_path=path)"),
    ("test_order_of_a_shuffled_loader_after_a_resume", RESUMED),
    ("test_metrics_after_a_resume", RESUMED),
    ("test_sanity_check_after_a_resume", RESUMED),
    *(
        (row, RESUMED)
        for row in (
            "test_resume_with_other_optimizers",
            "test_resume_with_another_rate",
            "test_resume_inside_a_validation",
            "test_rows_behind_the_checkpoint_of_a_resumed_fit",
        )
    ),
    (
        "test_files_from_behind_the_point_of_resuming",
        RESUMED + "ModelCheckpoint(monitor='val_loss')",
    ),
    *(
        (
            "test_schedule_of_a_prolonged_run",
            RESUMED + f"torch.optim.lr_scheduler.{scheduler}(optimizer, 9)",
        )
        for scheduler in ("CosineAnnealingLR", "OneCycleLR", "PolynomialLR")
    ),
    (
        "test_resume_from_the_end_hook_of_an_epoch",
        _CALLBACK + "    def on_train_epoch_end(self, trainer, pl_module):\n"
        "        trainer.save_checkpoint('x.ckpt')\n" + RESUMED,
    ),
    (
        "test_resume_from_the_end_hook_of_an_epoch",
        "ModelCheckpoint(save_on_train_epoch_end=True)\n" + RESUMED,
    ),
    (
        "test_unfrozen_backbone_after_a_resume",
        "from lightning.pytorch.callbacks import BackboneFinetuning\n" + RESUMED,
    ),
    (
        "test_masks_after_a_resume",
        "from lightning.pytorch.callbacks import ModelPruning\n" + RESUMED,
    ),
    *(
        (
            "test_resume_with_a_finder",
            f"from lightning.pytorch.callbacks import {finder}\n" + RESUMED,
        )
        for finder in ("LearningRateFinder", "BatchSizeFinder")
    ),
    *(
        (
            "test_last_checkpoint_that_is_not_there",
            f"trainer.{evaluate}(model, ckpt_path='last')",
        )
        for evaluate in ("validate", "test", "predict")
    ),
    (
        "test_code_in_a_file",
        MODULE + "    pass\nNet.load_from_checkpoint('x', weights_only=False)",
    ),
    *(
        (
            row,
            "from lightning.pytorch.cli import LightningCLI\n"
            + MODULE
            + "    pass\nNet.load_from_checkpoint('x')",
        )
        for row in (
            "test_class_that_a_checkpoint_names",
            "test_class_of_a_checkpoint_that_nobody_imported",
            "test_class_that_a_checkpoint_puts_in_place_of_the_chosen_one",
        )
    ),
    *(
        ("test_hook_before_a_file_is_written", code)
        for code in (
            MODULE + "    def on_save_checkpoint(self, checkpoint): ...",
            _CALLBACK + "    def on_save_checkpoint(self, trainer, module, x): ...",
        )
    ),
    (
        "test_state_that_no_loader_reads",
        MODULE + "    def on_save_checkpoint(self, checkpoint): ...",
    ),
    *(
        (
            "test_hyperparameters_that_are_not_plain",
            "@dataclass\nclass Config: ...\nclass Kind(StrEnum): ...\n"
            + MODULE
            + f"    def __init__(self, given: {annotation}):\n"
            "        self.save_hyperparameters()",
        )
        for annotation in ("Path", "Config | None", "list[Kind]", "'Config'")
    ),
    (
        "test_override_that_is_no_argument",
        MODULE + "    def __init__(self, width): ...\n"
        "Net.load_from_checkpoint('x', strict=False, wdith=3)",
    ),
    *(
        (row, "from lightning.pytorch.plugins.io import AsyncCheckpointIO")
        for row in (
            "test_removal_while_a_thread_writes_checkpoints",
            "test_saving_while_a_thread_writes",
            "test_disk_that_is_full_when_a_thread_writes",
            "test_write_that_fails_in_a_thread",
        )
    ),
    (
        "test_state_of_callbacks_after_evaluating_a_checkpoint",
        _GIVEN_STATE + "trainer.test(model, loader, 'best')",
    ),
    (
        "test_mode_of_a_module_that_is_exported",
        MODULE + "    pass\nnet = Net()\nnet.to_onnx('x.onnx', sample)",
    ),
    (
        "test_step_checkpoint_before_its_metric",
        "ModelCheckpoint(monitor='val_loss', every_n_train_steps=100)",
    ),
    (
        "test_step_checkpoint_before_its_metric",
        "ModelCheckpoint(monitor='val_loss', train_time_interval=timedelta(hours=1))",
    ),
    (
        "test_steps_between_checkpoints_by_hand",
        TRAINED_BY_HAND + "ModelCheckpoint(every_n_train_steps=100)",
    ),
    (
        "test_checkpoints_of_a_fit_that_never_validates",
        MODULE + "    def training_step(self, batch): ...\n"
        "Trainer(check_val_every_n_epoch=2)",
    ),
    ("test_last_checkpoint_is_the_newest", "ModelCheckpoint(save_last=True)"),
    (
        "test_last_checkpoint_of_an_epoch_whose_score_is_not_kept",
        "ModelCheckpoint(monitor='val_loss', save_last='link')",
    ),
    (
        "test_last_checkpoint_of_a_trial_run",
        "Trainer(fast_dev_run=True, callbacks=ModelCheckpoint(save_last=True))",
    ),
    (
        "test_save_on_exception_after_a_broken_loss",
        "ModelCheckpoint(save_on_exception=True)",
    ),
    (
        "test_averaged_weights_in_a_file_of_weights_alone",
        "from lightning.pytorch.callbacks import EMAWeightAveraging\n"
        "ModelCheckpoint(save_weights_only=True)",
    ),
    (
        "test_weights_after_evaluating_an_averaged_checkpoint",
        "from lightning.pytorch.callbacks import WeightAveraging\n"
        "trainer.test(model, ckpt_path='best')",
    ),
    *(
        (row, "L.pytorch.callbacks.OnExceptionCheckpoint('runs')")
        for row in (
            "test_evaluating_the_file_of_a_failed_fit",
            "test_exception_before_the_first_batch",
            "test_fit_after_no_exception",
        )
    ),
    (
        "test_epochs_in_the_progress_bar",
        "from lightning.pytorch.callbacks import RichProgressBar",
    ),
    (
        "test_stream_of_the_tqdm_bar",
        "from lightning.pytorch.callbacks import TQDMProgressBar",
    ),
    (
        "test_scaling_returns_only_sizes_that_fit",
        "from lightning.pytorch.tuner import Tuner\n"
        "tuner = Tuner(Trainer())\ntuner.scale_batch_size(model)",
    ),
    ("test_abbreviated_options", "from lightning.pytorch.cli import LightningCLI"),
    (
        "test_teardown_after_an_error",
        "class Data(LightningDataModule):\n    def teardown(self, stage): ...",
    ),
    (
        "test_error_in_clean_up",
        _CALLBACK + "    def on_exception(self, trainer, pl_module, exception): ...",
    ),
    (
        "test_interrupt_by_the_keyboard",
        "try:\n    Trainer().fit(model)\nexcept (KeyboardInterrupt, OSError):\n    pass",
    ),
    (
        "test_exit_code_of_a_terminated_fit",
        "try:\n    trainer.fit(model)\nexcept SystemExit as error:\n    pass",
    ),
    (
        "test_exit_code_of_a_terminated_fit",
        "from lightning.pytorch.utilities.exceptions import SIGTERMException",
    ),
    ("test_datamodule_given_twice", "trainer.fit(model, data, datamodule=other)"),
    (
        "test_datamodule_given_twice",
        "trainer.validate(model, dataloaders=data, datamodule=other)",
    ),
    (
        "test_method_that_is_no_hook",
        MODULE + "    def on_train_epoch_ends(self): ...",
    ),
    ("test_method_that_is_no_hook", _CALLBACK + "    def on_epoch_end(self): ..."),
    (
        "test_method_that_is_no_hook",
        MODULE + "    def configure_optimiser(self): ...",
    ),
    (
        "test_method_that_is_no_hook",
        MODULE + "    def train_dataloaders(self): ...",
    ),
    (
        "test_method_that_is_no_hook",
        MODULE + "    def training_step_end(self, outputs): ...",
    ),
    *(
        (row, f"try:\n    trainer.fit(model)\nexcept {kind}:\n    pass")
        for row, kind in (
            ("test_bad_seed", "ValueError"),
            ("test_early_stopping_without_its_metric", "RuntimeError"),
            ("test_error_for_a_precision_that_cannot_be", "ValueError"),
            ("test_module_that_has_not_been_compiled", "ValueError"),
            ("test_hook_with_wrong_arguments", "TypeError"),
            ("test_epoch_end_hook_of_version_1", "NotImplementedError"),
        )
    ),
]

# The same for rules about which the list of names alone has something.
WITHOUT_ROW = [
    ("it is refused on CPUs", "Trainer(devices=2, sync_batchnorm=True)"),
    ("a subclass implements", "from lightning.pytorch.strategies import Strategy"),
    (
        "`str` and f-strings of a member",
        "from lightning.pytorch.trainer.states import TrainerFn",
    ),
]


def uses_in_examples() -> set[str]:
    """Return all that the check sees in the code of these lists."""
    seen: set[str] = set()
    for _, code in (*CONCERNED, *NOT_CONCERNED, *WITHOUT_ROW):
        tree = ast.parse(IMPORTS + code)
        path = Path("code.py")
        usage = Usage(path, tree, CodeBase({path: tree}))
        follow_all([usage])
        seen |= usage.read()
    return seen
