"""The order of every hook, on the runtime and on the package it is compatible with."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from recording import (
    MODULE_HOOKS,
    OURS,
    REFERENCE,
    STEPPING_HOOKS,
    callback_hooks,
    data,
    quiet_trainer,
    recording,
    small_module,
    without_the_question,
)


def trace(namespace: str, stepping: bool, story: Any, **flags: Any) -> list[str]:
    log: list[str] = []
    hooks = MODULE_HOOKS + (STEPPING_HOOKS if stepping else [])
    module = recording(small_module(namespace), log, "module", hooks)()
    L = importlib.import_module(namespace)
    callback = recording(L.Callback, log, "callback", callback_hooks(namespace))()
    trainer = quiet_trainer(namespace, callbacks=[callback], **flags)
    story(trainer, module)
    return log


def fit(trainer: Any, module: Any) -> None:
    trainer.fit(module, data(), data(4))


def fit_without_validation(trainer: Any, module: Any) -> None:
    trainer.fit(module, data())


def test_everything(trainer: Any, module: Any) -> None:
    trainer.validate(module, data(4), verbose=False)
    trainer.test(module, data(4), verbose=False)
    trainer.predict(module, data(4))


test_everything.__test__ = False  # type: ignore[attr-defined]

CASES = {
    "plain": (fit, {"max_epochs": 2}),
    "no validation": (fit_without_validation, {"max_epochs": 2}),
    "accumulate": (fit, {"max_epochs": 2, "accumulate_grad_batches": 3}),
    "clip": (fit, {"max_epochs": 1, "gradient_clip_val": 0.5}),
    "max steps": (fit, {"max_steps": 6, "max_epochs": 5}),
    "max steps at epoch end": (fit, {"max_steps": 4, "max_epochs": 5}),
    "validate twice an epoch": (fit, {"max_epochs": 1, "val_check_interval": 0.5}),
    "validate every other epoch": (
        fit,
        {"max_epochs": 2, "check_val_every_n_epoch": 2},
    ),
    "no sanity check": (fit, {"max_epochs": 1, "num_sanity_val_steps": 0}),
    "fast dev run": (fit, {"fast_dev_run": 2}),
    "limits": (
        fit,
        {"max_epochs": 1, "limit_train_batches": 3, "limit_val_batches": 1},
    ),
    "evaluate": (test_everything, {}),
}


@pytest.mark.parametrize("stepping", [False, True], ids=["direct", "closure"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore")
def test_hook_order_is_the_reference_order(case: str, stepping: bool) -> None:
    story, flags = CASES[case]
    ours = trace(OURS, stepping, story, **flags)
    theirs = trace(REFERENCE, stepping, story, **flags)
    assert ours == theirs


DATA_HOOKS = [
    "prepare_data",
    "setup",
    "teardown",
    "state_dict",
    "load_state_dict",
    "on_exception",
    "on_before_batch_transfer",
    "transfer_batch_to_device",
    "on_after_batch_transfer",
    *(f"{stage}_dataloader" for stage in ("train", "val", "test", "predict")),
]


def recorded_data(namespace: str, log: list[str]) -> Any:
    """Return a datamodule of either package that writes down what is called."""
    base = importlib.import_module(namespace).LightningDataModule
    loaders = {
        f"{stage}_dataloader": lambda datamodule: data(4)
        for stage in ("train", "val", "test", "predict")
    }
    loaders["state_dict"] = lambda datamodule: {"seen": 1}
    own = type("Data", (base,), loaders)
    return recording(own, log, "datamodule", DATA_HOOKS)()


def everything_with_data(trainer: Any, module: Any, datamodule: Any) -> None:
    trainer.fit(module, datamodule=datamodule)
    trainer.validate(module, datamodule=datamodule, verbose=False)
    trainer.test(module, datamodule=datamodule, verbose=False)
    trainer.predict(module, datamodule=datamodule)


def broken_fit(trainer: Any, module: Any, datamodule: Any) -> None:
    module.on_train_epoch_end = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        trainer.fit(module, datamodule=datamodule)


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"accumulate_grad_batches": 2, "gradient_clip_val": 0.1},
        {"reload_dataloaders_every_n_epochs": 1, "num_sanity_val_steps": 0},
        {"val_check_interval": 1, "inference_mode": False},
        {"enable_checkpointing": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("story", [everything_with_data, broken_fit])
@pytest.mark.filterwarnings("ignore")
def test_hook_order_of_datamodule_and_every_stage(
    story: Any, flags: dict[str, Any], tmp_path: Any
) -> None:
    logs = []
    for namespace in (OURS, REFERENCE):
        log: list[str] = []
        hooks = [*MODULE_HOOKS, "on_before_batch_transfer"]
        module = recording(small_module(namespace), log, "module", hooks)()
        base = importlib.import_module(namespace).Callback
        callback = recording(base, log, "callback", callback_hooks(namespace))()
        root = tmp_path / namespace
        trainer = quiet_trainer(
            namespace,
            **{"max_epochs": 2, "default_root_dir": root, "callbacks": [callback]},
            **flags,
        )
        story(trainer, module, recorded_data(namespace, log))
        # After an error the clean-up differs, see `test_teardown_after_an_error`.
        logs.append([entry for entry in log if "teardown" not in entry])
    if "enable_checkpointing" in flags:
        logs[0] = without_the_question(logs[0])
    assert logs[0] == logs[1]
