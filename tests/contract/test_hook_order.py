"""The order of every hook, on the runtime and on the package it is compatible with."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from recording import (
    MODULE_HOOKS,
    STEPPING_HOOKS,
    callback_hooks,
    data,
    quiet_trainer,
    recording,
    small_module,
)

OURS, REFERENCE = "lightgen_runtime", "lightning"


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
