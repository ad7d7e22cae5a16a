"""Slips that people make: names, places, forgotten lines, and torch's own errors.

What is checked is what a stranger reads: what was wrong, and what to do next.
"""

from __future__ import annotations

import inspect
import re
import sys
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_runs import (
    Small,
    assert_says,
    fitted,
    loader,
    message_of,
    numbers,
    quiet,
    variant,
)
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from lightgen_runtime import (
    Callback,
    LightningDataModule,
    LightningModule,
    Trainer,
    callbacks,
    loggers,
    tuner,
)
from lightgen_runtime.core.hook_names import check_hook_names
from lightgen_runtime.trainer.trainer_arguments import RETIRED_ARGUMENTS
from lightgen_runtime.utilities import combined_loader
from lightgen_runtime.utilities.exceptions import (
    EmptyDataError,
    LightgenRuntimeError,
    MisconfigurationException,
    UnknownArgumentError,
)


class Data(LightningDataModule):
    def train_dataloader(self) -> Any:
        return loader()


# ---- arguments of Trainer ----


@pytest.mark.parametrize("name", sorted(RETIRED_ARGUMENTS))
def test_argument_of_lightning_1_says_what_to_use(name: str) -> None:
    with pytest.raises(TypeError) as caught:
        Trainer(**{name: 1})  # type: ignore[arg-type]
    assert isinstance(caught.value, UnknownArgumentError)
    assert_says(str(caught.value), repr(name), "Lightning 1", RETIRED_ARGUMENTS[name])


@pytest.mark.parametrize("name", sorted(RETIRED_ARGUMENTS))
def test_what_to_use_instead_exists(name: str) -> None:
    known = inspect.signature(Trainer).parameters
    assert name not in known
    advice = RETIRED_ARGUMENTS[name]
    for argument in re.findall(r"(\w+)=", re.sub(r"`[^`]*`", "", advice)):
        assert argument in known
    homes = (callbacks, loggers, tuner, combined_loader)
    for kind in re.findall(r"`([A-Z]\w+)\(", advice):
        assert any(hasattr(home, kind) for home in homes), kind


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("max_epoch", "max_epochs"),
        ("val_check_intervall", "val_check_interval"),
        ("epochs", "max_epochs"),
        ("accelerators", "accelerator"),
        ("gradient_clip_value", "gradient_clip_val"),
        ("callback", "callbacks"),
    ],
)
def test_misspelt_argument_names_the_nearest(given: str, meant: str) -> None:
    message = message_of(Trainer, **{given: 1})
    assert_says(message, repr(given), f"did you mean {meant!r}?")


def test_argument_like_no_other_lists_all() -> None:
    assert_says(message_of(Trainer, zzz=1), "'zzz'", "max_epochs", "default_root_dir")


def test_argument_without_a_name() -> None:
    assert_says(message_of(Trainer, 3), "3 without a name", "`Trainer(max_epochs=3)`")


def test_signature_of_trainer_is_its_own() -> None:
    parameters = inspect.signature(Trainer).parameters
    assert next(iter(parameters)) == "accelerator"
    assert parameters["max_epochs"].default is None


# ---- arguments of fit, validate, test, predict ----


class Forgetful(Small):
    def __init__(self) -> None:
        self.rate = 0.1


WRONG_PLACES: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "model and loader swapped": (
        lambda: quiet().fit(loader(), Small()),
        ["DataLoader as the model", "`trainer.fit(model, ...)`"],
    ),
    "model and datamodule swapped": (
        lambda: quiet().test(Data(), Small()),
        ["Data as the model", "`trainer.test(model, ...)`"],
    ),
    "class for model": (
        lambda: quiet().fit(Small, loader()),
        ["the class Small", "`Small(...)`"],
    ),
    "no model": (
        lambda: quiet().test(dataloaders=loader()),
        ["NoneType as the model", "`trainer.test(model, ...)`"],
    ),
    "plain network": (
        lambda: quiet().fit(nn.Linear(4, 1), loader()),
        ["Linear as the model", "`training_step`", "attribute"],
    ),
    "compiled network": (
        lambda: quiet().fit(torch.compile(nn.Linear(4, 1), backend="eager"), loader()),
        ["OptimizedModule", "`training_step`", "attribute"],
    ),
    "super().__init__ forgotten": (
        lambda: quiet().fit(Forgetful(), loader()),
        ["`Forgetful.__init__`", "`super().__init__()`"],
    ),
    "class for datamodule": (
        lambda: quiet().fit(Small(), Data),
        ["the class Data", "`Data(...)`"],
    ),
    "class for datamodule by name": (
        lambda: quiet().fit(Small(), datamodule=Data),
        ["the class Data", "`Data(...)`"],
    ),
    "loader for datamodule": (
        lambda: quiet().fit(Small(), datamodule=loader()),
        ["datamodule=...", "DataLoader", "after the model"],
    ),
    "two datamodules": (
        lambda: quiet().fit(Small(), Data(), datamodule=Data()),
        ["Data in the place of a loader", "`datamodule=...`"],
    ),
    "datamodule for validation": (
        lambda: quiet().fit(Small(), loader(), Data()),
        ["Data in the place of a loader", "alone"],
    ),
    "datamodule and loader": (
        lambda: quiet().fit(Small(), Data(), loader()),
        ["both loaders and a datamodule"],
    ),
}


@pytest.mark.parametrize("case", WRONG_PLACES)
def test_argument_in_the_wrong_place(case: str) -> None:
    action, parts = WRONG_PLACES[case]
    assert_says(message_of(action), *parts)


def test_same_datamodule_in_both_places_is_one() -> None:
    data, trainer = Data(), quiet()
    trainer.fit(Small(), datamodule=data)
    assert trainer.global_step == 4


# ---- data ----


class Nothing(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(())


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ("data/", ["'data/' (str)", "`DataLoader`"]),
        ([None, None], ["None (NoneType)", "`DataLoader`"]),
        ([], ["an empty collection"]),
        (DataLoader(Nothing()), ["DataLoader yielded no batch", "dataset"]),
        (iter(()), ["yielded no batch", "read once only"]),
    ],
)
def test_nothing_to_train_on(given: Any, parts: list[str]) -> None:
    message = message_of(quiet().fit, Small(), given)
    assert_says(message, *parts)


def test_training_without_a_batch_is_an_error_of_data() -> None:
    with pytest.raises(EmptyDataError):
        quiet().fit(Small(), DataLoader(Nothing()))


def test_generator_that_is_used_up_is_told_in_the_second_epoch() -> None:
    trainer = quiet(max_epochs=2)
    with pytest.warns(UserWarning, match=r"generator yielded no batch.*read once only"):
        trainer.fit(Small(), (numbers(2) for _ in range(3)))
    assert trainer.global_step == 3


def test_evaluation_without_a_batch_is_warned_about() -> None:
    with pytest.warns(UserWarning, match="yielded no batch"):
        assert quiet().validate(Small(), DataLoader(Nothing()), verbose=False) == [{}]


def test_stream_that_is_not_read_is_not_empty() -> None:
    trainer = quiet(limit_val_batches=0)
    trainer.fit(Small(), loader(), DataLoader(Nothing()))
    assert trainer.global_step == 4


def test_dataset_for_a_loader_is_warned_about() -> None:
    with pytest.warns(UserWarning, match=r"a TensorDataset: .*DataLoader\(dataset"):
        quiet().validate(
            variant(validation_step=lambda self, batch: None),
            TensorDataset(numbers()),
            verbose=False,
        )


def test_loader_as_an_attribute() -> None:
    module = variant(train_dataloader=loader())
    message = message_of(quiet().fit, module)
    assert_says(message, "`Variant.train_dataloader` is a DataLoader", "method")


def test_error_in_a_worker_names_the_line() -> None:
    class Broken(Dataset[Any]):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Any:
            raise ValueError(f"file {index} is broken")

    with pytest.raises(ValueError, match="file 0 is broken") as caught:
        quiet().fit(Small(), DataLoader(Broken(), num_workers=1))
    assert "__getitem__" in str(caught.value)


# ---- names of hooks ----


@pytest.mark.parametrize(
    ("own", "hook"),
    [
        ("on_train_epoch_ends", "on_train_epoch_end"),
        ("on_val_epoch_end", "on_validation_epoch_end"),
        ("on_training_epoch_start", "on_train_epoch_start"),
        ("on_load_checkpoints", "on_load_checkpoint"),
        ("configure_callback", "configure_callbacks"),
        ("val_dataloaders", "val_dataloader"),
        ("predictstep", None),
        ("train_step", None),
        ("best_step", None),
        ("on_plateau", None),
        ("validation_steps", None),  # a helper: `validation_step` is there too
    ],
)
def test_misspelt_hook_of_a_module(
    own: str, hook: str | None, recwarn: pytest.WarningsRecorder
) -> None:
    check_hook_names(variant(**{own: lambda self: None}), LightningModule)
    messages = [str(warning.message) for warning in recwarn]
    if hook is None:
        assert not messages
    else:
        (message,) = messages
        assert_says(message, f"`Variant.{own}`", "never called", f"mean `{hook}`?")


def test_misspelt_hooks_are_told_at_the_start() -> None:
    class Counting(Callback):
        def on_train_batch_ends(self, *args: Any) -> None:
            raise AssertionError

    class Named(Data):
        def val_dataloaders(self) -> Any:
            raise AssertionError

    module = variant(on_train_starts=lambda self: None)
    with pytest.warns(UserWarning, match="never called") as caught:
        quiet(callbacks=Counting()).fit(module, datamodule=Named())
    texts = "\n".join(str(warning.message) for warning in caught)
    assert_says(texts, "Variant.on_train_starts", "mean `on_train_start`?")
    assert_says(texts, "Counting.on_train_batch_ends", "mean `on_train_batch_end`?")
    assert_says(texts, "Named.val_dataloaders", "mean `val_dataloader`?")


@pytest.mark.parametrize(
    ("method", "old", "new"),
    [
        ("fit", "training_epoch_end", "on_train_epoch_end"),
        ("fit", "validation_epoch_end", "on_validation_epoch_end"),
        ("validate", "validation_epoch_end", "on_validation_epoch_end"),
        ("test", "test_epoch_end", "on_test_epoch_end"),
    ],
)
def test_epoch_end_of_lightning_1_is_refused(method: str, old: str, new: str) -> None:
    module = variant(**{old: lambda self, outputs: None})
    message = message_of(getattr(quiet(), method), module, loader())
    assert_says(message, f"`Variant.{old}`", f"`{new}`", "no outputs")


@pytest.mark.parametrize("method", ["fit", "predict"])
def test_hook_that_made_layers_in_lightning_1_is_refused(method: str) -> None:
    module = variant(configure_sharded_model=lambda self: None)
    message = message_of(getattr(quiet(), method), module, loader())
    assert_says(message, "`Variant.configure_sharded_model`", "Use `configure_model`.")


def test_epoch_end_of_another_stage_or_of_a_callback_is_warned_about() -> None:
    callback = type("Old", (Callback,), {"validation_epoch_end": lambda self: None})()
    module = variant(test_epoch_end=lambda self, outputs: None)
    with pytest.warns(UserWarning, match="never called") as caught:
        assert fitted(module, callbacks=callback).global_step == 4
    texts = "\n".join(str(warning.message) for warning in caught)
    assert_says(texts, "`Variant.test_epoch_end`", "`Old.validation_epoch_end`")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("on_epoch_end", "on_train_epoch_end"),
        ("training_step_end", "training_step"),
        ("on_hpc_save", "on_save_checkpoint"),
    ],
)
def test_other_hooks_of_lightning_1_are_warned_about(old: str, new: str) -> None:
    with pytest.warns(UserWarning, match=f"Variant.{old}.*Lightning 1.*`{new}`"):
        fitted(variant(**{old: lambda self, *args: None}))


@pytest.mark.parametrize(
    ("method", "needed", "own"),
    [
        ("fit", "training_step", "training_steps"),
        ("fit", "configure_optimizers", "configure_optimizer"),
        ("validate", "validation_step", "validaton_step"),
        ("test", "test_step", "tests_step"),
    ],
)
def test_missing_step_names_the_nearest(method: str, needed: str, own: str) -> None:
    members: dict[str, Any] = {own: lambda self, batch: None}
    if needed == "configure_optimizers":
        members["training_step"] = members[own]
    module: Any = type("Half", (LightningModule,), members)()
    message = message_of(getattr(quiet(), method), module, loader())
    assert_says(message, f"`{needed}`", f"Did you mean `{needed}` by `{own}`?")


def test_missing_loader_names_the_nearest_of_the_datamodule() -> None:
    class Named(LightningDataModule):
        def training_dataloader(self) -> Any:
            raise AssertionError

    message = message_of(quiet().fit, Small(), Named())
    assert_says(message, "`train_dataloader` in Named", "by `training_dataloader`?")


# ---- what hooks and steps take ----


@pytest.mark.parametrize(
    ("hook", "function", "form"),
    [
        (
            "on_train_batch_end",
            lambda self, batch, batch_idx: None,
            "(self, outputs, batch, batch_idx)",
        ),
        ("on_train_epoch_end", lambda self, outputs: None, "(self)"),
        ("on_validation_epoch_end", lambda self, outputs: None, "(self)"),
        ("on_before_optimizer_step", lambda self: None, "(self, optimizer)"),
        ("setup", lambda self: None, "(self, stage)"),
    ],
)
def test_hook_that_cannot_be_called(hook: str, function: Any, form: str) -> None:
    trainer = quiet()
    message = message_of(trainer.fit, variant(**{hook: function}), loader(), loader(4))
    assert_says(message, f"`Variant.{hook}` cannot be called", f"`def {hook}{form}`")
    assert trainer.global_step == 0


def test_hook_of_a_callback_that_cannot_be_called() -> None:
    class Short(Callback):
        def on_train_start(self, trainer: Any) -> None:  # type: ignore[override]
            raise AssertionError

    message = message_of(fitted, Small(), callbacks=Short())
    assert_says(message, "`Short.on_train_start`", "(self, trainer, pl_module)")


def test_hook_that_this_stage_does_not_call_is_left_alone() -> None:
    module = variant(on_test_epoch_end=lambda self, outputs: None)
    assert fitted(module).global_step == 4
    message = message_of(quiet().test, module, loader())
    assert_says(message, "`Variant.on_test_epoch_end`")


def test_hook_may_take_more_than_it_needs() -> None:
    module = variant(
        on_train_batch_start=lambda self, batch, batch_idx, unused=0: None,
        on_train_epoch_end=lambda self, *args, **kwargs: None,
    )
    assert fitted(module).global_step == 4


# ---- optimizers and logging ----


def scheduler_alone(self: Any) -> Any:
    return StepLR(SGD(self.parameters(), 0.1), 1)


@pytest.mark.parametrize(
    ("configure", "part"),
    [
        (lambda self: (o for o in [SGD(self.parameters(), 0.1)]), "a generator;"),
        (lambda self: {SGD(self.parameters(), 0.1)}, "a set of (SGD);"),
        (scheduler_alone, "returned a StepLR;"),
        (lambda self: {"optimizer": scheduler_alone(self)}, '"optimizer" is a StepLR;'),
        (
            lambda self: ([scheduler_alone(self)], [SGD(self.parameters(), 0.1)]),
            "a tuple of (a list of (StepLR), a list of (SGD));",
        ),
    ],
)
def test_optimizers_of_another_kind(configure: Any, part: str) -> None:
    message = message_of(fitted, variant(configure_optimizers=configure))
    assert_says(message, part, "accepted are", "[optimizers], [schedulers")


def test_misspelt_key_of_the_optimizer() -> None:
    module = variant(
        configure_optimizers=lambda self: {"optimizers": SGD(self.parameters(), 0.1)}
    )
    assert_says(message_of(fitted, module), "'optimizers'", 'did you mean "optimizer"?')


def test_name_and_value_of_a_metric_swapped() -> None:
    module = variant(training_step=lambda self, batch: self.log(batch.mean(), "loss"))
    message = message_of(fitted, module)
    assert_says(message, "Tensor as the name", "`self.log(name, value)`")


def test_log_where_nothing_runs_yet() -> None:
    module = variant(setup=lambda self, stage: self.log("x", 1.0))
    message = message_of(fitted, module)
    assert_says(message, "setup or another method", "in a step or an epoch hook")


# ---- errors of torch ----


def twice(self: Any, batch: Any) -> Any:
    loss = self(batch).pow(2).mean()
    loss.backward()
    return loss


def in_place(self: Any, batch: Any) -> Any:
    return self(batch).exp().add_(1).mean()


def frozen(self: Any, batch: Any) -> Any:
    self.requires_grad_(False)
    return self(batch).mean()


def on_two_devices(self: Any, batch: Any) -> Any:
    raise RuntimeError("Expected all tensors to be on the same device, but found ...")


TORCHS: list[tuple[Any, str]] = [
    (lambda self, batch: self(batch).mean().detach(), "does not depend on any param"),
    (frozen, "all parameters are frozen"),
    (lambda self, batch: self(batch), "with `.mean()`"),
    (in_place, "`Trainer(detect_anomaly=True)`"),
    (twice, "`training_step` only returns the loss"),
    (lambda self, batch: self([batch]).mean(), "`x, y = batch`"),
    (on_two_devices, "device=self.device"),
]


@pytest.mark.parametrize(("step", "advice"), TORCHS)
def test_error_of_torch_gets_advice(step: Any, advice: str) -> None:
    with pytest.raises((RuntimeError, TypeError)) as caught:
        fitted(variant(training_step=step))
    assert not isinstance(caught.value, LightgenRuntimeError)
    (note,) = caught.value.__notes__
    assert advice in note
    if sys.version_info >= (3, 11):
        assert advice in "".join(traceback.format_exception(caught.value))


def test_optimizer_of_nothing_gets_advice() -> None:
    module = variant(configure_optimizers=lambda self: SGD([], 0.1))
    with pytest.raises(ValueError, match="empty parameter list") as caught:
        fitted(module)
    assert "nn.ModuleList" in caught.value.__notes__[0]


def test_error_of_the_users_own_gets_none() -> None:
    def training_step(self: Any, batch: Any) -> Any:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as caught:
        fitted(variant(training_step=training_step))
    assert not hasattr(caught.value, "__notes__")


def test_refusals_are_of_one_family() -> None:
    assert issubclass(UnknownArgumentError, LightgenRuntimeError)
    assert not issubclass(UnknownArgumentError, MisconfigurationException)
