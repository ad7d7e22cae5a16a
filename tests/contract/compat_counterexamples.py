"""Code that a row of docs/compat.md must not be brought up for."""

from __future__ import annotations

# Pieces of what the rows do concern, too.
TRAINED_BY_HAND = """
class Net(LightningModule):
    def training_step(self, batch, batch_idx):
        loss = self(batch)
        self.manual_backward(loss)
        self.clip_gradients(self.optimizers(), 0.5)
"""
SCALED = "Trainer(precision='16-mixed')\n"
RESUMED = "Trainer().fit(model, ckpt_path=path)\n"
MODULE = "class Net(LightningModule):\n"

# A row that a rule must not bring up, and code that looks like one it concerns.
NOT_CONCERNED = [
    ("test_short_accumulation_window", "Trainer(accumulate_grad_batches=1)"),
    ("test_scheduler_frequency", "x = {'scheduler': s, 'frequency': 1}"),
    ("test_scheduler_frequency", "x = {'frequency': 440}"),
    (
        "test_estimated_steps_of_an_iterable_loader",
        "trainer.estimated_stepping_batches",
    ),
    (
        "test_numbers_of_batches_after_another_entry_point",
        "print(trainer.num_training_batches)",
    ),
    (
        "test_limit_beyond_the_end_of_an_iterable_loader",
        "Trainer(limit_train_batches=9)",
    ),
    (
        "test_log_of_a_nested_module",
        "class Teacher(LightningModule):\n"
        "    def training_step(self, batch):\n        self.log('x', 1)\n"
        "class Student(LightningModule):\n"
        "    def __init__(self):\n        self.teacher = Teacher()",
    ),
    (
        "test_precision_of_logged_numbers",
        MODULE + "    def training_step(self, batch):\n        self.log('x', 1)\n",
    ),
    (
        "test_values_of_a_hook_that_runs_twice_in_a_batch",
        MODULE
        + "    def on_before_optimizer_step(self, optimizer):\n        self.log('x', 1)",
    ),
    *(
        ("test_every_sample_is_evaluated_once", f"Trainer({flags})")
        for flags in ("devices=1", "devices='auto'", "devices=[0]", "strategy='auto'")
    ),
    ("test_predictions_are_dealt_out_by_batches", "trainer.predict(model)"),
    ("test_trainer_model_in_several_processes", "print(trainer.model)"),
    (
        "test_order_of_training_samples_that_are_not_shuffled",
        "Trainer(devices=2).fit(model, DataLoader(data, shuffle=True))",
    ),
    (
        "test_step_values_between_two_reports",
        "trainer = Trainer(devices=2)\nprint(trainer.callback_metrics)",
    ),
    ("test_resume_inside_an_epoch_by_other_processes", RESUMED),
    (
        "test_scheduler_after_a_step_that_the_scaler_skipped",
        "Trainer(precision='bf16-mixed')\nx = {'scheduler': s, 'interval': 'step'}",
    ),
    ("test_clipping_by_hand_with_a_scaler", TRAINED_BY_HAND),
    (
        "test_clipping_by_hand_with_a_scaler",
        MODULE + "    def configure_gradient_clipping(self, optimizer, *_):\n"
        "        self.clip_gradients(optimizer, 0.5)\n" + SCALED,
    ),
    ("test_resume_inside_an_epoch", "trainer.fit(model, ckpt_path=None)"),
    ("test_schedule_of_a_prolonged_run", RESUMED + "StepLR(optimizer, 9)"),
    (
        "test_files_from_behind_the_point_of_resuming",
        "ModelCheckpoint(monitor='val_loss')",
    ),
    (
        "test_unfrozen_backbone_after_a_resume",
        "from lightning.pytorch.callbacks import BackboneFinetuning",
    ),
    (
        "test_masks_after_a_resume",
        "from lightning.pytorch.callbacks import ModelPruning",
    ),
    (
        "test_resume_with_a_finder",
        "from lightning.pytorch.callbacks import LearningRateFinder",
    ),
    (
        "test_last_checkpoint_that_is_not_there",
        "trainer.test(model, ckpt_path='best')",
    ),
    (
        "test_hyperparameters_that_are_not_plain",
        MODULE + "    def __init__(self, folder: Path, width: int):\n"
        "        self.save_hyperparameters(ignore=['folder'])",
    ),
    (
        "test_scaled_step_after_calling_the_closure",
        MODULE + "    def optimizer_step(self, epoch, i, optimizer, closure):\n"
        "        optimizer.step(closure=closure)\n" + SCALED,
    ),
    (
        "test_hyperparameters_that_are_not_plain",
        MODULE + "    def __init__(self, folder: Path, width: int):\n"
        "        self.save_hyperparameters('width')",
    ),
    (
        "test_override_that_is_no_argument",
        MODULE + "    def __init__(self, width, **more): ...\n"
        "Net.load_from_checkpoint('x', depth=3)",
    ),
    (
        "test_state_of_callbacks_after_evaluating_a_checkpoint",
        "trainer.test(model, ckpt_path='best')",
    ),
    (
        "test_step_checkpoint_before_its_metric",
        "ModelCheckpoint(every_n_train_steps=4, save_top_k=-1)",
    ),
    (
        "test_checkpoints_of_a_fit_that_never_validates",
        MODULE + "    def validation_step(self, batch): ...\n"
        "Trainer(check_val_every_n_epoch=2)",
    ),
    (
        "test_interrupt_by_the_keyboard",
        "try:\n    work()\nexcept KeyboardInterrupt:\n    pass",
    ),
    ("test_datamodule_given_twice", "trainer.fit(model, datamodule=data)"),
    (
        "test_method_that_is_no_hook",
        MODULE + "    def train_step(self, batch): ...\n    def step(self): ...",
    ),
    ("test_bad_seed", "try:\n    trainer.fit(model)\nexcept OSError:\n    pass"),
]
