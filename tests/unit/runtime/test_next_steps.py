"""What a message tells to do next, after slips with losses, logging and hyperparameters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_runs import Small, fitted, variant

from lightgen_runtime.utilities.exceptions import MisconfigurationException

ONE = torch.ones((), requires_grad=True)


def step_returning(value: Any) -> Small:
    return variant(training_step=lambda self, batch, batch_idx: value)


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        ((ONE, ONE), "add them up.*by the same names"),
        ({"a": ONE, "b": ONE}, "add them up"),
        ({"los": ONE}, "Did you mean 'loss' where it says 'los'"),
        (0.5, r"before `\.item\(\)`"),
        ({"loss": 0.5}, r"before `\.item\(\)`"),
        ("loss", r"skip the batch\.$"),
        ([ONE], r"skip the batch\.$"),
    ],
    ids=str,
)
def test_no_loss_to_minimise(returned: Any, says: str) -> None:
    with pytest.raises(MisconfigurationException, match=says):
        fitted(step_returning(returned))


@pytest.mark.parametrize(
    ("second", "says"),
    [
        ({"prog_bar": True}, "prog_bar=False and prog_bar=True"),
        ({"on_epoch": True}, "on_epoch=None and on_epoch=True"),
        ({"reduce_fx": "sum"}, "reduce_fx='mean' and reduce_fx='sum'"),
    ],
)
def test_arguments_in_which_two_logs_of_a_key_differ(
    second: dict[str, Any], says: str
) -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        self.log("a", 1.0)
        self.log("a", 2.0, **second)

    with pytest.raises(MisconfigurationException, match=says):
        fitted(variant(training_step=training_step))


@pytest.mark.parametrize("hook", ["setup", "configure_model", "prepare_data"])
def test_log_before_the_loops(hook: str) -> None:
    def log(self: Any, *args: Any, **kwargs: Any) -> None:
        self.log("x", 1.0)

    with pytest.raises(MisconfigurationException, match=r"outside of the loops"):
        fitted(variant(**{hook: log}))


def test_log_dict_of_no_dictionary() -> None:
    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        self.log_dict([1.0])

    with pytest.raises(
        MisconfigurationException, match=r"list.*self\.log\(name, value"
    ):
        fitted(variant(training_step=training_step))


def test_overfitting_a_share_that_rounds_to_none_names_its_flag() -> None:
    with pytest.raises(MisconfigurationException, match=r"overfit_batches=0\.01"):
        fitted(Small(), overfit_batches=0.01)


def test_several_schedulers_in_a_dictionary() -> None:
    def configure_optimizers(self: Any) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), 0.1)
        schedulers = [torch.optim.lr_scheduler.StepLR(optimizer, 1)]
        return {"optimizer": optimizer, "lr_scheduler": schedulers}

    with pytest.raises(
        MisconfigurationException, match=r"\[optimizer\], \[schedulers\]"
    ):
        fitted(variant(configure_optimizers=configure_optimizers))


def test_hyperparameters_are_not_assigned() -> None:
    with pytest.raises(AttributeError, match=r"save_hyperparameters\(\.\.\.\)"):
        Small().hparams = {"lr": 1}
