"""What `self.log` accepts, how it weights, and what it refuses."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import Small, fitted, loader, numbers, quiet, variant
from torch import Tensor
from torch.utils.data import DataLoader

from lightgen_runtime.core.metrics import find_batch_size
from lightgen_runtime.utilities.exceptions import MisconfigurationException


def logging(*args: Any, hook: str = "training_step", **kwargs: Any) -> Small:
    """Return a module that makes one call of `self.log` in `hook`."""

    def step(self: Any, *given: Any, **named: Any) -> Any:
        self.log(*args, **kwargs)
        if hook == "training_step":
            return self(given[0]).mean()
        return None

    return variant(**{hook: step})


def refused(module: Small) -> str:
    with pytest.raises(MisconfigurationException) as caught:
        fitted(module)
    return str(caught.value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1.0),
        (0.25, 0.25),
        (True, 1.0),
        (torch.tensor(3), 3.0),
        (torch.tensor([0.5]), 0.5),
        (torch.tensor(True), 1.0),
        (torch.tensor(0.5, dtype=torch.bfloat16), 0.5),
        (torch.tensor(0.1, dtype=torch.float64), 0.1),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7.0),
    ],
)
def test_numbers_and_tensors_of_one_element(value: Any, expected: float) -> None:
    trainer = fitted(logging("x", value, on_step=True, on_epoch=True))
    for key in ("x", "x_step", "x_epoch"):
        assert float(trainer.callback_metrics[key]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        (torch.zeros(3), ["shape (3,)", "`.mean()`"]),
        (torch.zeros(0), ["shape (0,)"]),
        ({"a": 1.0}, ["mapping", "`self.log_dict`"]),
        ("0.5", ["got str", "a number or a tensor"]),
        (None, ["got NoneType"]),
        ([1.0], ["got list"]),
    ],
)
def test_values_that_are_refused(value: Any, parts: list[str]) -> None:
    message = refused(logging("x", value))
    assert all(part in message for part in ["`self.log('x', ...)`", *parts]), message


@pytest.mark.parametrize(
    "hook",
    [
        "setup",
        "configure_optimizers",
        "on_fit_start",
        "on_train_end",
        "on_fit_end",
        "on_validation_end",
        "on_validation_model_eval",
    ],
)
def test_hooks_that_report_nothing_refuse(hook: str) -> None:
    module = logging("x", 1.0, hook=hook)
    message = refused(module)
    assert "`self.log('x', ...)`" in message
    assert "Log in a step or an epoch hook" in message


def test_predict_step_refuses() -> None:
    with pytest.raises(MisconfigurationException, match="inside `predict_step`"):
        quiet().predict(logging("x", 1.0, hook="predict_step"), loader())


@pytest.mark.parametrize("hook", ["on_train_epoch_end", "on_validation_epoch_start"])
def test_epoch_hooks_refuse_step_reports(hook: str) -> None:
    message = refused(logging("x", 1.0, hook=hook, on_step=True))
    assert f"inside `{hook}`" in message
    assert "Leave `on_step` out" in message


def test_neither_step_nor_epoch_is_refused() -> None:
    message = refused(logging("x", 1.0, on_step=False, on_epoch=False))
    assert "reports nothing" in message


def test_same_key_with_other_arguments_is_refused() -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> None:
        self.log("x", 1.0)
        self.log("x", 1.0, prog_bar=True)

    message = refused(variant(training_step=training_step))
    assert "twice in `training_step`" in message
    assert "same arguments" in message


@pytest.mark.parametrize("reduce_fx", ["meen", torch.median, None])
def test_unknown_reduction_is_refused(reduce_fx: Any) -> None:
    message = refused(logging("x", 1.0, reduce_fx=reduce_fx))
    assert "'mean', 'sum', 'max', 'min'" in message
    if reduce_fx == "meen":
        assert "Did you mean 'mean'" in message


def test_log_outside_of_a_run_only_warns() -> None:
    with pytest.warns(UserWarning, match="not attached to a trainer"):
        Small().log("x", 1.0)


def test_log_after_a_run_only_warns() -> None:
    module = Small()
    fitted(module)
    with pytest.warns(UserWarning, match="outside of a run"):
        module.log("x", 1.0)


# ---- weighting ----

Pair = namedtuple("Pair", "x y")


@dataclass
class Sample:
    name: str
    values: Tensor


@pytest.mark.parametrize(
    ("batch", "size"),
    [
        (torch.zeros(5, 2), 5),
        (torch.zeros(()), 1),
        ([torch.zeros(3), torch.zeros(7)], 3),
        ({"a": {"b": [torch.zeros(4, 1)]}}, 4),
        (Pair(torch.zeros(6), None), 6),
        (Sample("x", torch.zeros(2)), 1),
        ((None, 5, torch.zeros(2)), 2),
        (["ab", "cd", "ef"], 2),
        (object(), 1),
        ([], 1),
    ],
)
def test_size_of_a_batch(batch: Any, size: int) -> None:
    assert find_batch_size(batch) == size


def test_mean_weights_the_ragged_last_batch() -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        self.log("x", batch.mean(), on_step=False, on_epoch=True)
        return self(batch).mean()

    module = variant(training_step=training_step)
    trainer = quiet()
    trainer.fit(module, loader(7, 3))
    assert float(trainer.callback_metrics["x"]) == pytest.approx(
        float(numbers(7).mean()), rel=1e-6
    )


def test_mean_weights_by_the_given_batch_size() -> None:
    def validation_step(self: Any, batch: Any, batch_idx: int) -> None:
        self.log("x", float(batch_idx), batch_size=1 + 2 * batch_idx)

    module = variant(validation_step=validation_step)
    (results,) = quiet().validate(module, loader(4), verbose=False)
    assert results["x"] == pytest.approx(0.75)


def test_dict_batches_are_weighted_too() -> None:
    def validation_step(self: Any, batch: Any, batch_idx: int) -> None:
        self.log("x", batch["x"].mean())

    rows = [{"x": value} for value in numbers(5)]
    (results,) = quiet().validate(
        variant(validation_step=validation_step), DataLoader(rows, 2), verbose=False
    )
    assert results["x"] == pytest.approx(float(numbers(5).mean()), rel=1e-6)


def test_mean_of_numbers_keeps_double_precision() -> None:
    third = 1 / 3
    module = logging("x", third, hook="validation_step")
    (results,) = quiet().validate(module, loader(), verbose=False)
    assert results["x"] == pytest.approx(third, rel=1e-15)


def test_mean_of_half_precision_does_not_overflow() -> None:
    value = torch.tensor(60000.0, dtype=torch.float16)
    module = logging("x", value, hook="validation_step")
    (results,) = quiet().validate(module, loader(64, 32), verbose=False)
    assert results["x"] == pytest.approx(60000.0, rel=1e-3)


def test_logged_tensor_may_be_changed_afterwards() -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        running = torch.full((), float(batch_idx))
        self.log("x", running, on_step=True, on_epoch=True)
        running.fill_(99.0)
        return self(batch).mean()

    metrics = fitted(
        variant(training_step=training_step), log_every_n_steps=1
    ).callback_metrics
    assert (metrics["x_step"], metrics["x_epoch"]) == (3.0, 1.5)


def test_logging_keeps_no_graph_unless_asked() -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        loss = self(batch).mean()
        self.log("x", loss, on_epoch=True)
        return loss

    trainer = fitted(variant(training_step=training_step))
    assert not any(v.requires_grad for v in trainer.callback_metrics.values())


def test_sum_and_mean_begin_anew_each_epoch() -> None:
    seen = []

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        self.log("n", 1.0, on_step=False, on_epoch=True, reduce_fx="sum")
        return self(batch).mean()

    def on_train_epoch_start(self: Any) -> None:
        seen.append(self.trainer.callback_metrics.get("n"))

    module = variant(
        training_step=training_step, on_train_epoch_start=on_train_epoch_start
    )
    trainer = fitted(module, max_epochs=3)
    assert seen == [None, 4, 4]
    assert trainer.callback_metrics["n"] == 4


def test_several_loaders_have_keys_of_their_own() -> None:
    def validation_step(
        self: Any, batch: Any, batch_idx: int, dataloader_idx: int
    ) -> None:
        self.log("x", float(dataloader_idx))
        self.log(f"own_{dataloader_idx}", 1.0, add_dataloader_idx=False)

    module = variant(validation_step=validation_step)
    results = quiet().validate(module, [loader(2), loader(4)], verbose=False)
    assert results == [
        {"x/dataloader_idx_0": 0.0, "own_0": 1.0},
        {"x/dataloader_idx_1": 1.0, "own_1": 1.0},
    ]


def test_sanity_check_leaves_no_metrics() -> None:
    seen = []

    def on_train_start(self: Any) -> None:
        seen.append(dict(self.trainer.callback_metrics))

    fitted(variant(on_train_start=on_train_start))
    assert seen == [{}]
