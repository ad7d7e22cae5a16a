"""A mistake in module, loaders or flags: what was given, what is accepted, what next."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_runs import (
    Small,
    Stream,
    assert_says,
    fitted,
    loader,
    message_of,
    numbers,
    quiet,
    variant,
)
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader

from lightgen_runtime import Callback, LightningDataModule, LightningModule
from lightgen_runtime.callbacks import (
    EarlyStopping,
    ModelCheckpoint,
    PlainProgressBar,
)
from lightgen_runtime.utilities.exceptions import EmptyDataError

# ---- training_step ----


@pytest.mark.parametrize(
    ("returned", "found"),
    [
        (0.5, "returned float"),
        ("loss", "returned str"),
        ({"los": torch.ones(())}, "a mapping with the keys ['los']"),
        ({"loss": 0.5}, "a mapping with the keys ['loss']"),
        ((torch.ones(()),), "returned tuple"),
    ],
)
@pytest.mark.parametrize("closure", [False, True])
def test_wrong_return_of_training_step(
    returned: Any, found: str, closure: bool
) -> None:
    members: dict[str, Any] = {"training_step": lambda self, batch, batch_idx: returned}
    if closure:
        members["backward"] = lambda self, loss: loss.backward()
    message = message_of(fitted, variant(**members))
    assert_says(message, "`training_step`", found, "loss tensor", "None to skip")


def test_loss_with_several_elements_is_torchs_own_error() -> None:
    module = variant(training_step=lambda self, batch, batch_idx: self(batch))
    with pytest.raises(RuntimeError, match="scalar outputs"):
        fitted(module)


def test_step_with_too_many_required_arguments() -> None:
    module = variant(training_step=lambda self, batch, batch_idx, more: None)
    assert_says(
        message_of(fitted, module),
        "requires 3 arguments",
        "`training_step(batch, batch_idx)`",
    )


# ---- configure_optimizers ----


def bare_pair(self: Any) -> Any:
    optimizer = SGD(self.parameters(), 0.1)
    return optimizer, StepLR(optimizer, 1)


def foreign_scheduler(self: Any) -> Any:
    optimizer, other = SGD(self.parameters(), 0.1), SGD(self.parameters(), 0.1)
    return [optimizer], [StepLR(other, 1)]


def dictionary(**entries: Any) -> Any:
    def configure_optimizers(self: Any) -> Any:
        optimizer = SGD(self.parameters(), 0.1)
        made = {k: v(optimizer) if callable(v) else v for k, v in entries.items()}
        return {"optimizer": optimizer, "lr_scheduler": made}

    return configure_optimizers


def step_lr(optimizer: Any) -> Any:
    return StepLR(optimizer, 1)


BAD_OPTIMIZERS: dict[str, tuple[Any, list[str]]] = {
    "a class": (lambda self: SGD, ["<class", "accepted are", "an optimizer"]),
    "parameters": (lambda self: list(self.parameters()), ["a list of (Parameter"]),
    "an empty list": (lambda self: [], ["a list of ()", "accepted are"]),
    "a pair without lists": (
        bare_pair,
        ["a tuple of (SGD, StepLR)", "[optimizers], [schedulers"],
    ),
    "a dictionary without optimizer": (
        lambda self: {"lr_scheduler": None},
        ['"optimizer" is None', "accepted are"],
    ),
    "a foreign scheduler": (
        foreign_scheduler,
        ["StepLR", "did not return", "Return that optimizer too"],
    ),
    "several in automatic mode": (
        lambda self: [SGD(self.parameters(), 0.1), Adam(self.parameters())],
        ["2 optimizers", "automatic_optimization = False", "manual_backward"],
    ),
    "a plateau without monitor": (
        dictionary(scheduler=ReduceLROnPlateau),
        ["ReduceLROnPlateau", '"monitor": "val_loss"'],
    ),
    "no scheduler": (dictionary(interval="step"), ["['interval']", '"scheduler"']),
    "an unknown interval": (
        dictionary(scheduler=step_lr, interval="batch"),
        ["'batch'", '"epoch" and "step"'],
    ),
    "frequency 0": (
        dictionary(scheduler=step_lr, frequency=0),
        ["frequency 0", "at least 1"],
    ),
    "frequency of half a step": (
        dictionary(scheduler=step_lr, frequency=0.5),
        ["frequency 0.5", "whole number"],
    ),
    "no real scheduler": (
        dictionary(scheduler=lambda optimizer: 5),
        ["5 (int)", "`state_dict`"],
    ),
}


@pytest.mark.parametrize("case", BAD_OPTIMIZERS)
def test_wrong_return_of_configure_optimizers(case: str) -> None:
    configure, parts = BAD_OPTIMIZERS[case]
    assert_says(message_of(fitted, variant(configure_optimizers=configure)), *parts)


def test_unknown_scheduler_key_is_warned_about_with_the_nearest() -> None:
    module = variant(
        configure_optimizers=dictionary(scheduler=step_lr, frequenzy=2, interval="step")
    )
    with pytest.warns(UserWarning, match="'frequenzy'.*Did you mean 'frequency'"):
        fitted(module)


def test_unknown_optimizer_key_is_warned_about() -> None:
    module = variant(
        configure_optimizers=lambda self: {
            "optimizer": SGD(self.parameters(), 0.1),
            "lr_schedulers": None,
        }
    )
    with pytest.warns(UserWarning, match="Did you mean 'lr_scheduler'"):
        fitted(module)


def test_one_cycle_per_epoch_is_warned_about() -> None:
    def configure_optimizers(self: Any) -> Any:
        optimizer = SGD(self.parameters(), 0.1)
        return [optimizer], [OneCycleLR(optimizer, 0.1, total_steps=4)]

    with pytest.warns(UserWarning, match='set "interval": "step"'):
        fitted(variant(configure_optimizers=configure_optimizers))


def plateau(strict: bool) -> Any:
    return dictionary(scheduler=ReduceLROnPlateau, monitor="val_lss", strict=strict)


def test_monitor_never_logged_is_an_error_with_the_nearest_name() -> None:
    module = variant(configure_optimizers=plateau(strict=True))
    message = message_of(fitted, module)
    assert_says(message, "'val_lss'", "['val_loss']", "Did you mean 'val_loss'")
    assert_says(message, "self.log('val_lss'", '"strict": False')


def test_monitor_never_logged_may_be_tolerated() -> None:
    module = variant(configure_optimizers=plateau(strict=False))
    with pytest.warns(UserWarning, match="The scheduler did not step"):
        assert fitted(module).global_step == 4


def test_fit_without_any_optimizer_says_so_and_changes_nothing() -> None:
    module = variant(configure_optimizers=lambda self: None)
    before = module.layer.weight.clone()
    with pytest.warns(UserWarning, match="without an optimizer"):
        fitted(module)
    assert torch.equal(module.layer.weight, before)


# ---- manual optimization ----


def test_manual_backward_in_automatic_mode() -> None:
    module = variant(
        training_step=lambda self, batch: self.manual_backward(self(batch).mean())
    )
    assert_says(
        message_of(fitted, module), "`manual_backward`", "automatic_optimization = Fals"
    )


@pytest.mark.parametrize(
    "flags", [{"gradient_clip_val": 0.5}, {"accumulate_grad_batches": 2}]
)
def test_flags_that_need_automatic_mode(flags: dict[str, Any]) -> None:
    def configure_optimizers(self: Any) -> Any:
        self.automatic_optimization = False
        return SGD(self.parameters(), 0.1)

    message = message_of(
        fitted, variant(configure_optimizers=configure_optimizers), **flags
    )
    assert_says(message, next(iter(flags)), "manual optimization", "Remove the flag")


def test_optimizers_outside_of_a_fit() -> None:
    with pytest.raises(RuntimeError, match="has not been trained"):
        Small().optimizers()


def test_trainer_of_an_unattached_module() -> None:
    with pytest.raises(RuntimeError, match=r"pass it to `trainer\.fit\(\)`"):
        _ = Small().trainer


# ---- what a stage needs ----


@pytest.mark.parametrize(
    ("method", "missing"),
    [
        ("fit", "training_step"),
        ("validate", "validation_step"),
        ("test", "test_step"),
    ],
)
def test_stage_without_its_step(method: str, missing: str) -> None:
    message = message_of(getattr(quiet(), method), LightningModule(), loader())
    assert_says(message, f"`trainer.{method}()`", f"`{missing}`", "LightningModule")


def test_fit_without_configure_optimizers() -> None:
    class Half(LightningModule):
        def training_step(self, batch: Any) -> Any:
            return batch.mean()

    assert_says(
        message_of(quiet().fit, Half(), loader()), "`configure_optimizers`", "Half"
    )


@pytest.mark.parametrize(
    ("method", "hook"),
    [
        ("fit", "train_dataloader"),
        ("validate", "val_dataloader"),
        ("test", "test_dataloader"),
        ("predict", "predict_dataloader"),
    ],
)
def test_stage_without_data(method: str, hook: str) -> None:
    message = message_of(getattr(quiet(), method), Small())
    assert_says(message, f"`trainer.{method}()` needs data", f"`{hook}`", "datamodule")


@pytest.mark.parametrize("model", [None, Small, torch.nn.Linear(1, 1), "model"])
def test_model_that_is_no_module(model: Any) -> None:
    message = message_of(quiet().fit, model, loader())
    named = "class Small" if model is Small else type(model).__name__
    assert_says(message, named, "`LightningModule` is needed")


def test_loaders_and_datamodule_exclude_each_other() -> None:
    message = message_of(
        quiet().fit, Small(), loader(), datamodule=LightningDataModule()
    )
    assert_says(message, "both loaders and a datamodule", "one of them")


@pytest.mark.parametrize("given", [5, None, loader])
def test_training_loader_of_a_wrong_kind(given: Any) -> None:
    module = variant(train_dataloader=lambda self: given)
    message = message_of(quiet().fit, module)
    assert_says(message, "`train_dataloader`", repr(given), "`DataLoader`")


def test_validation_loader_of_a_wrong_kind() -> None:
    module = variant(val_dataloader=lambda self: None)
    assert_says(
        message_of(quiet().fit, module, loader()),
        "`val_dataloader`",
        "None",
        "iterable",
    )


@pytest.mark.parametrize("drop_last", [False, True])
def test_empty_training_loader(drop_last: bool) -> None:
    empty = DataLoader(numbers(3 if drop_last else 0), 4, drop_last=drop_last)
    with pytest.raises(EmptyDataError, match=r"`train_dataloader`.*batch size"):
        quiet().fit(Small(), empty)


def test_empty_test_loader() -> None:
    with pytest.raises(EmptyDataError, match="`test_dataloader`"):
        quiet().test(Small(), DataLoader(numbers(0), 4), verbose=False)


# ---- trainer flags ----

BAD_FLAGS: list[tuple[dict[str, Any], list[str]]] = [
    ({"max_epochs": -2}, ["max_epochs=-2", "at least -1"]),
    ({"max_epochs": 1.5}, ["max_epochs=1.5", "whole number"]),
    ({"max_epochs": "3"}, ["max_epochs='3'", "whole number"]),
    ({"max_epochs": True}, ["max_epochs=True", "whole number"]),
    ({"max_steps": -2}, ["max_steps=-2", "at least -1"]),
    ({"max_steps": None}, ["max_steps=None", "at least -1"]),
    ({"min_epochs": -1}, ["min_epochs=-1", "at least 0"]),
    ({"min_steps": "all"}, ["min_steps='all'"]),
    ({"accumulate_grad_batches": 0}, ["accumulate_grad_batches=0", "at least 1"]),
    ({"accumulate_grad_batches": None}, ["accumulate_grad_batches=None"]),
    ({"accumulate_grad_batches": {0: 2}}, ["{0: 2}", "whole number"]),
    ({"log_every_n_steps": -1}, ["log_every_n_steps=-1", "at least 0"]),
    ({"num_sanity_val_steps": -2}, ["num_sanity_val_steps=-2", "at least -1"]),
    ({"check_val_every_n_epoch": 0}, ["check_val_every_n_epoch=0", "at least 1"]),
    ({"limit_train_batches": 1.5}, ["limit_train_batches=1.5", "from 0.0 to 1.0"]),
    ({"limit_val_batches": -1}, ["limit_val_batches=-1", "number of batches"]),
    ({"limit_test_batches": "half"}, ["limit_test_batches='half'"]),
    ({"limit_predict_batches": -0.5}, ["limit_predict_batches=-0.5"]),
    ({"overfit_batches": -3}, ["overfit_batches=-3"]),
    ({"val_check_interval": 0}, ["val_check_interval=0", "limit_val_batches=0"]),
    ({"val_check_interval": 1.5}, ["val_check_interval=1.5"]),
    ({"gradient_clip_val": -1}, ["gradient_clip_val=-1", "at least 0"]),
    ({"gradient_clip_val": float("nan")}, ["gradient_clip_val=nan"]),
    ({"gradient_clip_val": "1"}, ["gradient_clip_val='1'"]),
    (
        {"gradient_clip_algorithm": "nrom"},
        ["'nrom'", "'norm', 'value'", "Did you mean 'norm'"],
    ),
    ({"fast_dev_run": -1}, ["fast_dev_run=-1", "True, False"]),
    ({"fast_dev_run": "yes"}, ["fast_dev_run='yes'"]),
    ({"deterministic": "wran"}, ["'wran'", '"warn"']),
    ({"accelerator": "cup"}, ["'cup'", "'auto'", "Did you mean 'cpu'"]),
    ({"accelerator": None}, ["accelerator=None", "'auto'"]),
    (
        {"accelerator": "tpu"},
        ["'tpu'", "accepted are", "'mps', or an `Accelerator`. TPUs"],
    ),
    ({"devices": 0}, ["devices=0", "at least one", "This machine has"]),
    ({"devices": -2}, ["devices=-2", "-1 for all"]),
    ({"devices": True}, ["devices=True", "'auto'"]),
    ({"devices": [0, 0]}, ["[0, 0]", "each once"]),
    ({"accelerator": "cpu", "devices": [0, 1]}, ["[0, 1]", "number of processes"]),
    ({"devices": ["x"]}, ["['x']", "'0,2'"]),
    ({"accelerator": "cpu", "devices": [3]}, ["[3]", "devices=1"]),
    ({"num_nodes": 2}, ["num_nodes=2", "torchrun --nnodes 2"]),
    ({"num_nodes": 0}, ["num_nodes=0", "at least 1"]),
    ({"strategy": "horovod"}, ["'horovod'", "'auto', 'single_device', 'ddp'"]),
    ({"strategy": "deepspeed_stage_2"}, ["'deepspeed_stage_2'", "DeepSpeed", "'fsdp'"]),
    ({"strategy": "xla"}, ["'xla'", "TPUs are not supported"]),
    ({"strategy": "fsdq"}, ["'fsdq'", "Did you mean 'fsdp'"]),
    (
        {"accelerator": "cpu", "strategy": "single_device", "devices": 2},
        ["'single_device'", "2 device(s)", "'ddp'"],
    ),
    (
        {"accelerator": "cpu", "devices": 2, "sync_batchnorm": True},
        ["sync_batchnorm=True", "trains on GPUs only"],
    ),
    ({"strategy": "single_devise"}, ["Did you mean 'single_device'"]),
    ({"precision": "bf16-mixd"}, ["'bf16-mixd'", "Did you mean 'bf16-mixed'"]),
    ({"precision": "32-tru"}, ["'32-tru'", "'32-true'"]),
    ({"logger": "csv"}, ["'csv' (str)", "`Logger`"]),
    ({"logger": 5}, ["5 (int)"]),
    ({"callbacks": 5}, ["5 (int)", "`Callback` subclass"]),
    ({"callbacks": [Callback]}, ["type", "an instance"]),
    (
        {"callbacks": ModelCheckpoint(), "enable_checkpointing": False},
        ["enable_checkpointing=False", "remove one"],
    ),
    (
        {"callbacks": PlainProgressBar(), "enable_progress_bar": False},
        ["enable_progress_bar=False", "remove one"],
    ),
    (
        {"callbacks": [EarlyStopping("a"), EarlyStopping("a", patience=9)]},
        ["two EarlyStopping", "state key", "different arguments"],
    ),
]


@pytest.mark.parametrize(
    ("flags", "parts"), BAD_FLAGS, ids=lambda value: str(value)[:40]
)
def test_bad_flag_is_refused_at_construction(
    flags: dict[str, Any], parts: list[str]
) -> None:
    assert_says(message_of(quiet, **flags), *parts)


def test_accelerator_that_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert_says(message_of(quiet, accelerator="cuda"), "this machine has", "'auto'")


def test_device_index_that_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert_says(
        message_of(quiet, accelerator="gpu", devices=[2]), "[2]", "2 cuda", "0 to 1"
    )


def test_trainer_without_any_limit_warns() -> None:
    trainer = quiet(max_epochs=None)
    module = variant(
        on_train_batch_end=lambda *_: setattr(trainer, "should_stop", True)
    )
    with pytest.warns(UserWarning, match="neither max_epochs nor max_steps"):
        trainer.fit(module, loader())


# ---- flags and data that do not go together ----


@pytest.mark.parametrize(
    ("flags", "given", "parts"),
    [
        (
            {"limit_train_batches": 0.1},
            loader(),
            ["limit_train_batches=0.1", "rounds to none", "0.250"],
        ),
        (
            {"limit_train_batches": 0.5},
            DataLoader(Stream(), 2),
            ["limit_train_batches=0.5", "no length", "whole number"],
        ),
        (
            {"val_check_interval": 9},
            loader(),
            ["val_check_interval=9", "4 batches", "check_val_every_n_epoch=None"],
        ),
        (
            {"val_check_interval": 0.5},
            DataLoader(Stream(), 2),
            ["val_check_interval=0.5", "no length"],
        ),
    ],
)
def test_limit_that_the_loader_cannot_meet(
    flags: dict[str, Any], given: Any, parts: list[str]
) -> None:
    assert_says(message_of(quiet(**flags).fit, Small(), given, loader(4)), *parts)


def test_model_in_evaluation_mode_is_warned_about() -> None:
    with pytest.warns(UserWarning, match=r"evaluation mode.*\.train\(\)"):
        fitted(Small().eval())


def test_checkpoint_asked_for_before_any_was_saved() -> None:
    trainer = quiet()
    for which in ("best", "last"):
        message = message_of(trainer.test, Small(), loader(), ckpt_path=which)
        assert_says(message, f"ckpt_path='{which}'", "`ModelCheckpoint`", "path")


def test_save_checkpoint_before_any_run() -> None:
    with pytest.raises(RuntimeError, match="before any run"):
        quiet().save_checkpoint("never.ckpt")
